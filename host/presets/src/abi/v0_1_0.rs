//! The world `countersign:preset@0.1.0`.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::preset::{self as host, Hooks, PresetFault};
use countersign_core::signing::{Recipe, Unsigned};
use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, ComponentType, InstancePre, Lift, Linker, Lower,
};

use super::{Compiled, Described, Guest};
use crate::deadline::Meter;
use crate::engine::{EngineConfig, SizeClass};
use crate::faults::{classify, plain};
use crate::host::{HostState, Level, PresetLog};
use crate::keys::{KeyRing, link_signing};
use crate::limits::Limiter;
use crate::spent;

mod convert;
mod hooks;

/// Bindings made from the WIT.
#[allow(
    missing_docs,
    unsafe_code,
    unreachable_pub,
    clippy::all,
    reason = "generated"
)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1.0",
        world: "preset",
        imports: { "countersign:preset/log": trappable },
    });
}

use bindings::countersign::preset::{description, log, types};
use bindings::exports::countersign::preset::provider;

/// The export that tells this version.
pub(super) const PROVIDER: &str = "countersign:preset/provider@0.1.0";
const SIGNING: &str = "countersign:preset/signing@0.1.0";

impl types::Host for HostState {}
impl description::Host for HostState {}

impl log::Host for HostState {
    fn log(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        Self::log(self, level, &message)
    }
}

/// Functions, by where the component exports them. `evaluate` is looked up by
/// itself: the generated look-up compares the types of the whole description
/// for each instance.
struct Functions {
    evaluate: Option<ComponentExportIndex>,
    authorize_parameters: Option<ComponentExportIndex>,
    token_answer: Option<ComponentExportIndex>,
    refresh_error: Option<ComponentExportIndex>,
    sign: Option<ComponentExportIndex>,
    identity: Option<ComponentExportIndex>,
    filter_tools: Option<ComponentExportIndex>,
    redact: Option<ComponentExportIndex>,
}

/// A linked component.
pub(super) struct Prepared {
    pre: bindings::PresetPre<HostState>,
    functions: Functions,
    class: Arc<SizeClass>,
    log: Arc<PresetLog>,
    config: EngineConfig,
}

impl Prepared {
    pub(super) fn new(compiled: Compiled) -> wasmtime::Result<Self> {
        let Compiled {
            component,
            class,
            log,
            config,
            signing,
        } = compiled;
        let mut linker = Linker::new(class.engine());
        log::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)?;
        if signing {
            link_signing(&mut linker, SIGNING)?;
        }
        crate::wasi::link(&mut linker, &component)?;
        let find_in = |interface: &str, function: &str| {
            let name = format!("countersign:preset/{interface}@0.1.0");
            let interface = component.get_export_index(None, name)?;
            component.get_export_index(Some(&interface), function)
        };
        let find = |hook: &str| find_in(hook, hook);
        let functions = Functions {
            evaluate: find_in("provider", "evaluate"),
            authorize_parameters: find("authorize-parameters"),
            token_answer: find("token-answer"),
            refresh_error: find("refresh-error"),
            sign: find("sign"),
            identity: find("identity"),
            filter_tools: find("filter-tools"),
            redact: find("redact"),
        };
        let pre = bindings::PresetPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self {
            pre,
            functions,
            class,
            log,
            config,
        })
    }

    /// Runs `work` in a fresh sandbox and throws it away.
    fn run<T>(
        &self,
        deadline: Duration,
        answer: usize,
        work: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, PresetFault> {
        let seat = self.class.enter()?;
        let meter = Meter::new(deadline);
        let first_look = meter.first();
        let state = HostState::new(
            Limiter::new(self.class.limits()),
            meter,
            Arc::clone(&self.log),
        );
        let mut store = Store::new(self.class.engine(), state);
        store.limiter(|state| &mut state.limiter);
        store.set_epoch_deadline(first_look);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().meter.look()));
        store.set_hostcall_fuel(answer);
        let done = work(&mut store);
        #[cfg(feature = "observe")]
        crate::observe::guest_ended();
        match done {
            Ok(Ok(value)) => {
                spent::done_with(store, seat);
                Ok(value)
            }
            Ok(Err(text)) => Err(PresetFault::Reported(plain(&text))),
            Err(error) => Err(classify(&error, store.data().limiter.refused())),
        }
    }

    /// Calls one function in a fresh sandbox.
    fn call<P, T>(
        &self,
        index: Option<&ComponentExportIndex>,
        parameters: P,
    ) -> Result<T, PresetFault>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        T: ComponentType + Lift + Send + Sync + 'static,
        (Result<T, String>,): ComponentNamedList + Lift,
    {
        self.call_and(index, parameters, |answer, _| answer)
    }

    /// Calls one function in a fresh sandbox, and takes from the sandbox what
    /// goes with the answer.
    fn call_and<P, T, R>(
        &self,
        index: Option<&ComponentExportIndex>,
        parameters: P,
        and: impl FnOnce(T, &mut HostState) -> R,
    ) -> Result<R, PresetFault>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        T: ComponentType + Lift + Send + Sync + 'static,
        (Result<T, String>,): ComponentNamedList + Lift,
    {
        let index = index.ok_or_else(|| {
            PresetFault::BadOutput(
                "describe names a hook that the component does not export".into(),
            )
        })?;
        let pre: &InstancePre<HostState> = self.pre.instance_pre();
        self.run(self.config.deadline, self.config.answer, |store| {
            let instance = pre.instantiate(&mut *store)?;
            let function =
                instance.get_typed_func::<P, (Result<T, String>,)>(&mut *store, index)?;
            let (answer,) = function.call(&mut *store, parameters)?;
            Ok(answer.map(|answer| and(answer, store.data_mut())))
        })
    }
}

impl Prepared {
    /// Evaluates in one sandbox, and tells how much memory that took.
    fn evaluating(
        &self,
        rounds: u32,
        parameters: (&provider::Call, &types::Grant),
        after: &mut dyn FnMut(),
    ) -> Result<usize, PresetFault> {
        type Answer = (Result<provider::Verdict, String>,);
        let index =
            self.functions.evaluate.as_ref().ok_or_else(|| {
                PresetFault::BadOutput("the component exports no evaluate".into())
            })?;
        let pre: &InstancePre<HostState> = self.pre.instance_pre();
        self.run(self.config.deadline, self.config.answer, |store| {
            let instance = pre.instantiate(&mut *store)?;
            let function = instance
                .get_typed_func::<(&provider::Call, &types::Grant), Answer>(&mut *store, index)?;
            for _ in 0..rounds {
                store.set_hostcall_fuel(self.config.answer);
                if let (Err(text),) = function.call(&mut *store, parameters)? {
                    return Ok(Err(text));
                }
                after();
            }
            Ok(Ok(store.data().limiter.used()))
        })
    }
}

fn guest_call(call: &host::Call<'_>, settings: Option<&str>) -> provider::Call {
    provider::Call {
        method: call.method.to_owned(),
        name: call.name.map(str::to_owned),
        arguments: call.arguments.map(str::to_owned),
        host: call.host.to_owned(),
        settings: settings.map(str::to_owned),
    }
}

impl Guest for Prepared {
    fn exported_hooks(&self) -> Hooks {
        let f = &self.functions;
        Hooks {
            authorize_parameters: f.authorize_parameters.is_some(),
            token_answer: f.token_answer.is_some(),
            refresh_error: f.refresh_error.is_some(),
            sign: f.sign.is_some(),
            identity: f.identity.is_some(),
            filter_tools: f.filter_tools.is_some(),
            redact: f.redact.is_some(),
        }
    }

    fn describe(&self, settings: &str) -> Result<Described, PresetFault> {
        let described = self.run(
            self.config.describe_deadline,
            self.config.description,
            |store| {
                let guest = self.pre.instantiate(&mut *store)?;
                guest
                    .countersign_preset_provider()
                    .call_describe(&mut *store, settings)
            },
        )?;
        Ok(convert::description(described))
    }

    fn evaluate(
        &self,
        call: &host::Call<'_>,
        settings: Option<&str>,
        grant: &host::GrantFacts<'_>,
    ) -> Result<host::Verdict, PresetFault> {
        let (call, grant) = (guest_call(call, settings), convert::grant(grant));
        self.call(self.functions.evaluate.as_ref(), (&call, &grant))
            .map(convert::verdict)
    }

    fn memory_of(
        &self,
        call: &host::Call<'_>,
        settings: Option<&str>,
        grant: &host::GrantFacts<'_>,
    ) -> Result<usize, PresetFault> {
        let (call, grant) = (guest_call(call, settings), convert::grant(grant));
        self.evaluating(1, (&call, &grant), &mut || ())
    }

    fn kept(
        &self,
        rounds: u32,
        call: &host::Call<'_>,
        settings: Option<&str>,
        grant: &host::GrantFacts<'_>,
        after: &mut dyn FnMut(),
    ) -> Result<(), PresetFault> {
        let (call, grant) = (guest_call(call, settings), convert::grant(grant));
        self.evaluating(rounds, (&call, &grant), after).map(drop)
    }

    fn authorize_parameters(
        &self,
        settings: &str,
        scopes: Vec<String>,
    ) -> Result<Vec<(String, String)>, PresetFault> {
        self.call(
            self.functions.authorize_parameters.as_ref(),
            (settings, scopes),
        )
    }

    fn token_answer(
        &self,
        status: u16,
        masked_body: &str,
    ) -> Result<Vec<host::TokenShape>, PresetFault> {
        let shapes: Vec<description::TokenShape> =
            self.call(self.functions.token_answer.as_ref(), (status, masked_body))?;
        Ok(shapes.into_iter().map(convert::token_shape).collect())
    }

    fn refresh_error(
        &self,
        status: u16,
        code: Option<&str>,
        masked_body: &str,
    ) -> Result<bool, PresetFault> {
        let outcome: hooks::Outcome = self.call(
            self.functions.refresh_error.as_ref(),
            (status, code, masked_body),
        )?;
        Ok(outcome == hooks::Outcome::Permanent)
    }

    fn filter_tools(
        &self,
        tools: &[String],
        grant: &host::GrantFacts<'_>,
    ) -> Result<Vec<String>, PresetFault> {
        self.call(
            self.functions.filter_tools.as_ref(),
            (tools, convert::grant(grant)),
        )
    }

    fn sign(&self, request: &Unsigned) -> Result<Recipe, PresetFault> {
        self.call_and(
            self.functions.sign.as_ref(),
            (hooks::Outgoing::from(request), KeyRing::lent()),
            |headers: Vec<hooks::SignedHeader>, state| Recipe {
                headers: headers.into_iter().map(Into::into).collect(),
                steps: std::mem::take(&mut state.keys).into_steps(),
            },
        )
    }

    fn identity(&self, body: &str) -> Result<host::AccountFacts, PresetFault> {
        let account: hooks::Account = self.call(self.functions.identity.as_ref(), (body,))?;
        Ok(account.into())
    }

    fn redact(
        &self,
        call: &host::Call<'_>,
        settings: Option<&str>,
        content: &str,
    ) -> Result<Vec<host::Redaction>, PresetFault> {
        let redactions: Vec<hooks::Redaction> = self.call(
            self.functions.redact.as_ref(),
            (guest_call(call, settings), content),
        )?;
        Ok(redactions.into_iter().map(Into::into).collect())
    }
}
