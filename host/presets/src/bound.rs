//! A loaded component under one provider's settings: what a call is judged by.

use std::sync::Arc;

use countersign_core::names::Digest;
use countersign_core::preset::{
    AccountFacts, Call, Description, GrantFacts, Preset, PresetFault, Redaction, TokenShape,
    Verdict,
};
use countersign_core::provider::Provider;
use countersign_core::scope::{Scope, ScopeSet};
use countersign_core::signing::{Recipe, Unsigned};

use crate::approval::{Approval, canonical_settings};
use crate::check::{self, CheckError, Declared};
use crate::load::{LoadError, SharedLoaded, self_test};
use crate::permissions::PermissionSet;
use crate::symbols::Symbols;

/// Implements [`Preset`]; immutable, so a call that holds it finishes on it.
pub(crate) struct Bound {
    loaded: SharedLoaded,
    settings: String,
    description: Description,
    arguments_of: Vec<String>,
    declared: Declared,
    approval: Approval,
}

impl Bound {
    /// Describes, checks and tests a component under a provider's settings.
    ///
    /// # Errors
    /// A [`LoadError`]: this version can't serve this provider.
    pub(crate) fn new(loaded: &SharedLoaded, provider: &Provider) -> Result<Arc<Self>, LoadError> {
        let settings = canonical_settings(&provider.settings);
        let described = loaded
            .guest
            .describe(&settings)
            .map_err(LoadError::Describe)?;
        let description = described.description;
        check::check(
            &description,
            &loaded.name,
            loaded.guest.exported_hooks(),
            &provider.settings,
            false,
        )?;
        self_test(&*loaded.guest, &description, &settings)?;
        let permissions = {
            let symbols =
                Symbols::new(&description, &provider.settings, false).map_err(|error| {
                    CheckError::Template {
                        place: "variables".into(),
                        error,
                    }
                })?;
            PermissionSet::resolve(
                &description,
                &described.arguments_of,
                &loaded.imports,
                Some(provider),
                &symbols,
            )?
        };
        let approval = Approval {
            digest: loaded.digest,
            settings: Digest::of(settings.as_bytes()),
            permissions,
        };
        Ok(Arc::new(Self {
            loaded: Arc::clone(loaded),
            settings,
            declared: Declared::of(&description),
            arguments_of: described.arguments_of,
            description,
            approval,
        }))
    }

    /// The component.
    pub(crate) fn loaded(&self) -> &SharedLoaded {
        &self.loaded
    }

    /// What it takes to approve it.
    pub(crate) fn approval(&self) -> &Approval {
        &self.approval
    }

    /// The settings, for a preset that wants them.
    fn settings(&self) -> Option<&str> {
        let wanted = self.description.wants.settings;
        wanted.then_some(self.settings.as_str())
    }

    /// Only what the description wants to be told.
    fn facts_for<'a>(&self, grant: &GrantFacts<'a>) -> GrantFacts<'a> {
        let wants = self.description.wants;
        GrantFacts {
            scopes: grant.scopes,
            account: grant.account.filter(|_| wants.account),
            facts: if wants.facts { grant.facts } else { &[] },
        }
    }
}

impl Preset for Bound {
    fn digest(&self) -> Digest {
        self.loaded.digest
    }

    fn description(&self) -> &Description {
        &self.description
    }

    fn imports_wasi(&self) -> bool {
        self.loaded.imports.iter().any(|i| i.starts_with("wasi:"))
    }

    fn wants_arguments(&self, call: &Call<'_>) -> bool {
        self.description.wants.arguments
            && (self.arguments_of.is_empty()
                || call
                    .name
                    .is_some_and(|name| self.arguments_of.iter().any(|n| n == name)))
    }

    fn evaluate(&self, call: &Call<'_>, grant: &GrantFacts<'_>) -> Result<Verdict, PresetFault> {
        let call = Call {
            arguments: call.arguments.filter(|_| self.wants_arguments(call)),
            ..call.clone()
        };
        let verdict = self
            .loaded
            .guest
            .evaluate(&call, self.settings(), &self.facts_for(grant))?;
        check::check_verdict(&verdict, &self.declared)?;
        Ok(verdict)
    }

    fn authorize_parameters(
        &self,
        scopes: &ScopeSet,
    ) -> Result<Vec<(String, String)>, PresetFault> {
        if !self.description.hooks.authorize_parameters {
            return Ok(Vec::new());
        }
        let scopes = scopes
            .iter()
            .map(|s: &Scope| s.as_str().to_owned())
            .collect();
        let parameters = self
            .loaded
            .guest
            .authorize_parameters(&self.settings, scopes)?;
        check::check_authorize_parameters(&parameters, &self.description)?;
        Ok(parameters)
    }

    fn token_answer(
        &self,
        status: u16,
        masked_body: &str,
    ) -> Result<Option<Vec<TokenShape>>, PresetFault> {
        if !self.description.hooks.token_answer {
            return Ok(None);
        }
        let shapes = self.loaded.guest.token_answer(status, masked_body)?;
        check::check_token_shapes(&self.description, &shapes)
            .map_err(|e| PresetFault::BadOutput(crate::faults::plain(&e.to_string())))?;
        Ok(Some(shapes))
    }

    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<Option<bool>, PresetFault> {
        if !self.description.hooks.refresh_error {
            return Ok(None);
        }
        self.loaded
            .guest
            .refresh_error(status, code, masked_body)
            .map(Some)
    }

    fn filter_tools(
        &self,
        tools: &[String],
        grant: &GrantFacts<'_>,
    ) -> Result<Option<Vec<String>>, PresetFault> {
        if !self.description.hooks.filter_tools {
            return Ok(None);
        }
        let kept = self
            .loaded
            .guest
            .filter_tools(tools, &self.facts_for(grant))?;
        // A name that was not given is ignored: the hook may only take away.
        Ok(Some(
            tools
                .iter()
                .filter(|tool| kept.contains(tool))
                .cloned()
                .collect(),
        ))
    }

    fn sign(&self, request: &Unsigned) -> Result<Option<Recipe>, PresetFault> {
        if !self.description.hooks.sign {
            return Ok(None);
        }
        let recipe = self.loaded.guest.sign(request)?;
        check::check_recipe(&recipe, &self.declared)?;
        Ok(Some(recipe))
    }

    fn identity(&self, covered_body: &str) -> Result<Option<AccountFacts>, PresetFault> {
        if !self.description.hooks.identity {
            return Ok(None);
        }
        let account = self.loaded.guest.identity(covered_body)?;
        check::check_account(&account)?;
        Ok(Some(account))
    }

    fn redact(
        &self,
        call: &Call<'_>,
        covered_result: &str,
    ) -> Result<Option<Vec<Redaction>>, PresetFault> {
        if !self.description.hooks.redact {
            return Ok(None);
        }
        let call = Call {
            arguments: call.arguments.filter(|_| self.wants_arguments(call)),
            ..call.clone()
        };
        let redactions = self
            .loaded
            .guest
            .redact(&call, self.settings(), covered_result)?;
        check::check_redactions(&redactions)?;
        Ok(Some(redactions))
    }
}
