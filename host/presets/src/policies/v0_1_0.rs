//! The world `countersign:policy@0.1.0`.

use std::sync::Arc;
use std::time::Duration;

use countersign_core::policy::{Judgement, Subject};
use countersign_core::preset::PresetFault;
use wasmtime::Store;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker};

use super::PolicyDescription;
use crate::check::cut;
use crate::deadline::Meter;
use crate::engine::{EngineConfig, Sandboxes, SizeClass};
use crate::faults::{classify, plain};
use crate::host::{HostState, Level, PresetLog};
use crate::limits::Limiter;
use crate::load::LoadError;

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
        path: "../../wit/policy-v0.1.0",
        world: "policy",
        imports: { "countersign:policy/log": trappable },
    });
}

use bindings::countersign::policy::{log, types};

pub(super) const PACKAGE: &str = "countersign:policy/";
/// The export that tells this version.
const JUDGE: &str = "countersign:policy/judge@0.1.0";

impl types::Host for HostState {}

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

/// A linked component.
pub(super) struct Prepared {
    pre: bindings::PolicyPre<HostState>,
    class: Arc<SizeClass>,
    log: Arc<PresetLog>,
    config: EngineConfig,
}

impl Prepared {
    /// Compiles and links; `tag` stands before its lines in the log.
    pub(super) fn new(sandboxes: &Sandboxes, bytes: &[u8], tag: String) -> Result<Self, LoadError> {
        let (component, class) = sandboxes
            .compile(bytes)
            .map_err(|e| LoadError::Invalid(plain(&e)))?;
        only_allowed_imports(&component)?;
        exports_judge(&component)?;
        let pre =
            link(&component, &class).map_err(|e| LoadError::Shape(plain(&format!("{e:#}"))))?;
        Ok(Self {
            pre,
            class,
            log: PresetLog::new(tag, sandboxes.seconds()),
            config: sandboxes.config().clone(),
        })
    }

    pub(super) fn describe(&self, settings: &str) -> Result<PolicyDescription, PresetFault> {
        let described = self.run(self.config.describe_deadline, self.config.answer, |store| {
            let guest = self.pre.instantiate(&mut *store)?;
            guest
                .countersign_policy_judge()
                .call_describe(&mut *store, settings)
        })?;
        Ok(PolicyDescription {
            name: described.name,
            display_name: described.display_name,
            documentation_url: described.documentation_url,
            wants_arguments: described.wants.contains(types::Wants::ARGUMENTS),
            wants_identity: described.wants.contains(types::Wants::IDENTITY),
            wants_grant: described.wants.contains(types::Wants::GRANT),
        })
    }

    /// Judges one call; what the description does not want is not handed over.
    pub(super) fn judge(
        &self,
        subject: &Subject<'_>,
        told: &PolicyDescription,
        settings: &str,
    ) -> Result<Judgement, PresetFault> {
        let Subject { asked, grant } = subject;
        let caller = asked.caller;
        let only = |wanted: bool, text: &str| match wanted {
            true => text.to_owned(),
            false => String::new(),
        };
        let caller = types::Caller {
            user: only(told.wants_identity, caller.user.as_str()),
            client: only(told.wants_identity, caller.client.as_str()),
            team: caller.team.to_string(),
            roles: caller.roles.iter().map(ToString::to_string).collect(),
        };
        let arguments = asked.call.arguments.filter(|_| told.wants_arguments);
        let call = types::Call {
            server: asked.server.to_string(),
            method: asked.call.method.to_owned(),
            name: asked.call.name.map(str::to_owned),
            arguments: arguments.map(str::to_owned),
        };
        let grant = match told.wants_grant {
            true => types::Grant {
                scopes: grant.scopes.iter().map(ToString::to_string).collect(),
                account: grant.account.map(str::to_owned),
            },
            false => types::Grant {
                scopes: Vec::new(),
                account: None,
            },
        };
        let judgement = self.run(self.config.deadline, self.config.answer, |store| {
            let guest = self.pre.instantiate(&mut *store)?;
            guest.countersign_policy_judge().call_judge(
                &mut *store,
                &caller,
                &call,
                &grant,
                settings,
            )
        })?;
        Ok(match judgement {
            types::Judgement::Allow => Judgement::Allow,
            types::Judgement::Deny(types::Refusal { code, message }) => {
                Judgement::Deny { code, message }
            }
            types::Judgement::NeedApproval(message) => Judgement::NeedApproval { message },
        })
    }

    /// Runs `work` in a fresh sandbox and throws it away.
    fn run<T>(
        &self,
        deadline: Duration,
        answer: usize,
        work: impl FnOnce(&mut Store<HostState>) -> wasmtime::Result<Result<T, String>>,
    ) -> Result<T, PresetFault> {
        let _seat = self.class.enter()?;
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
        match work(&mut store) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(text)) => Err(PresetFault::Reported(plain(&text))),
            Err(error) => Err(classify(&error, store.data().limiter.refused())),
        }
    }
}

fn link(
    component: &Component,
    class: &SizeClass,
) -> wasmtime::Result<bindings::PolicyPre<HostState>> {
    let mut linker = Linker::new(class.engine());
    log::add_to_linker::<_, wasmtime::component::HasSelf<_>>(&mut linker, |state| state)?;
    bindings::PolicyPre::new(linker.instantiate_pre(component)?)
}

/// A policy may import its log and types, nothing else.
fn only_allowed_imports(component: &Component) -> Result<(), LoadError> {
    let engine = component.engine();
    for (name, _) in component.component_type().imports(engine) {
        if name.starts_with("wasi:") {
            return Err(LoadError::Wasi(cut(name)));
        }
        let known = name
            .strip_prefix(PACKAGE)
            .and_then(|rest| rest.split_once('@'))
            .is_some_and(|(short, version)| {
                ["log", "types"].contains(&short) && version.starts_with("0.1.")
            });
        if !known {
            return Err(LoadError::ForbiddenPolicyImport(cut(name)));
        }
    }
    Ok(())
}

fn exports_judge(component: &Component) -> Result<(), LoadError> {
    let engine = component.engine();
    let mut found = Vec::new();
    for (name, item) in component.component_type().exports(engine) {
        if name == JUDGE && matches!(item.ty, ComponentItem::ComponentInstance(_)) {
            return Ok(());
        }
        found.push(cut(name));
    }
    found.truncate(5);
    Err(LoadError::NoJudge {
        found: if found.is_empty() {
            "nothing".to_owned()
        } else {
            found.join(", ")
        },
    })
}
