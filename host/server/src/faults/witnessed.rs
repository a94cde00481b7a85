//! A preset whose failures while somebody connects an account are reported.

use std::sync::Arc;

use countersign_core::names::{Digest, ProviderName, UserName};
use countersign_core::preset::{
    AccountFacts, Call, Description, GrantFacts, Preset, PresetFault, Redaction, TokenShape,
    Verdict,
};
use countersign_core::scope::ScopeSet;
use countersign_core::signing::{Recipe, Unsigned};
use countersign_oauth::Party;
use countersign_presets::{ConsentHook, FaultReport};

use crate::wiring::App;

/// A party as it is, whose preset tells of what fails in its hooks.
pub(crate) fn witnessed(app: &Arc<App>, party: Party, user: &UserName) -> Party {
    Party {
        preset: Arc::new(Witnessed {
            app: Arc::clone(app),
            preset: party.preset,
            provider: party.provider.name.clone(),
            user: user.clone(),
        }),
        provider: party.provider,
    }
}

struct Witnessed {
    app: Arc<App>,
    preset: Arc<dyn Preset>,
    provider: ProviderName,
    user: UserName,
}

impl Witnessed {
    fn told<T>(
        &self,
        hook: ConsentHook,
        outcome: Result<T, PresetFault>,
    ) -> Result<T, PresetFault> {
        if let Err(fault) = &outcome {
            self.app.faults.report(FaultReport {
                provider: self.provider.clone(),
                digest: self.preset.digest(),
                user: self.user.clone(),
                tool: None,
                hook: Some(hook),
                fault: fault.clone(),
            });
        }
        outcome
    }
}

impl Preset for Witnessed {
    fn digest(&self) -> Digest {
        self.preset.digest()
    }

    fn description(&self) -> &Description {
        self.preset.description()
    }

    fn imports_wasi(&self) -> bool {
        self.preset.imports_wasi()
    }

    fn wants_arguments(&self, call: &Call<'_>) -> bool {
        self.preset.wants_arguments(call)
    }

    fn evaluate(&self, call: &Call<'_>, grant: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        self.preset.evaluate(call, grant)
    }

    fn authorize_parameters(
        &self,
        scopes: &ScopeSet,
    ) -> Result<Vec<(String, String)>, PresetFault> {
        let outcome = self.preset.authorize_parameters(scopes);
        self.told(ConsentHook::AuthorizeParameters, outcome)
    }

    fn token_answer(
        &self,
        status: u16,
        masked_body: &str,
    ) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        let outcome = self.preset.token_answer(status, masked_body);
        self.told(ConsentHook::TokenAnswer, outcome)
    }

    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<Option<bool>, PresetFault> {
        let outcome = self.preset.refresh_error(status, code, masked_body);
        self.told(ConsentHook::RefreshError, outcome)
    }

    fn filter_tools(
        &self,
        tools: &[String],
        grant: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        self.preset.filter_tools(tools, grant)
    }

    fn sign(&self, request: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        self.preset.sign(request)
    }

    fn identity(&self, covered_body: &str) -> Result<Option<AccountFacts>, PresetFault> {
        let outcome = self.preset.identity(covered_body);
        self.told(ConsentHook::Identity, outcome)
    }

    fn redact(
        &self,
        call: &Call<'_>,
        covered_result: &str,
    ) -> Result<Option<Vec<Redaction>>, PresetFault> {
        self.preset.redact(call, covered_result)
    }
}
