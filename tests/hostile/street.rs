//! A hostile preset's house, the neighbour's, and a clock between them.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use countersign_core::names::{PresetName, ProviderName};
use countersign_core::preset::{Call, GrantFacts, Preset, PresetFault, Verdict};
use countersign_core::provider::Provider;
use countersign_core::scope::ScopeSet;
use countersign_presets::{EngineConfig, FileState};
use serde_json::json;

use crate::fixture::{Body, Fixture, allow, description};
use crate::house::{House, provider};

/// The file that every hostile component is put into.
pub const FILE: &str = "probe-1.0.0.wasm";

/// A neighbour's answers are looked at at least so often, however quickly the
/// hostile one is done.
const LOOKS: usize = 50;
/// Between the looks after those.
const BREATH: Duration = Duration::from_micros(500);

/// A catalog with a neighbour in it, and room for a hostile preset.
pub struct Street {
    pub house: House,
    neighbour: Arc<dyn Preset>,
    shown: String,
}

impl Street {
    pub fn new(shown: &str) -> Self {
        let mut config = EngineConfig::default();
        config.large.sandboxes = 2;
        let house = House::with_config(config);
        let mut said = description();
        said["name"] = json!("neighbour");
        house.put("neighbour-1.0.0.wasm", &Fixture::described(said).bytes());
        let neighbour = house.approve(&record("neighbour")).unwrap();
        Self {
            house,
            neighbour,
            shown: format!("\n{shown}: the neighbour's verdicts meanwhile, in microseconds\n"),
        }
    }

    /// Does `work` while the neighbour is asked again and again.
    ///
    /// # Panics
    /// If the neighbour is refused anything, or is not the same any more.
    pub fn beside<T>(&mut self, what: &str, work: impl FnOnce(&House) -> T) -> T {
        let done = AtomicBool::new(false);
        let neighbour = &*self.neighbour;
        let (outcome, mut times) = std::thread::scope(|scope| {
            let times = scope.spawn(|| {
                let mut times = Vec::new();
                while !done.load(Ordering::Relaxed) || times.len() < LOOKS {
                    let start = Instant::now();
                    let verdict = evaluate(neighbour, None);
                    times.push(start.elapsed());
                    assert!(matches!(verdict, Ok(Verdict::Allow { .. })), "{verdict:?}");
                    // Enough to see; the machine is for the hostile one.
                    if times.len() > LOOKS {
                        std::thread::sleep(BREATH);
                    }
                }
                times
            });
            let outcome =
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&self.house)));
            done.store(true, Ordering::Relaxed);
            (outcome, times.join().unwrap())
        });
        let now = self.house.catalog.current(&record("neighbour").name);
        assert_eq!(now.unwrap().digest(), self.neighbour.digest(), "{what}");
        times.sort();
        let at = |share: usize| times[(times.len() - 1) * share / 100].as_micros();
        self.shown += &format!(
            "  {what:<44} {:>6} calls  median {:>5}  p99 {:>6}  slowest {:>6}\n",
            times.len(),
            at(50),
            at(99),
            at(100)
        );
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// What the catalog says of this file, put in under the hostile name.
    pub fn refusal(&mut self, what: &str, bytes: &[u8]) -> String {
        self.beside(what, |house| {
            house.put(FILE, bytes);
            let list = house.catalog.list();
            let entry = list.into_iter().find(|entry| entry.file == FILE).unwrap();
            match entry.state {
                FileState::Refused { reason } => reason,
                other => panic!("{what} is not refused: {other:?}"),
            }
        })
    }

    /// Loads, approves and serves a component that harms only when called.
    pub fn serving(&mut self, what: &str, fixture: &Fixture) -> Arc<dyn Preset> {
        self.beside(&format!("{what} (load)"), |house| {
            house.put(FILE, &fixture.bytes());
            house
                .approve(&provider())
                .unwrap_or_else(|error| panic!("{what}: {error}"))
        })
    }

    /// How a call that the component answers with its misdeed fails.
    pub fn fault(&mut self, what: &str, fixture: &Fixture) -> PresetFault {
        let preset = self.serving(what, fixture);
        let fault = self.beside(what, |_| evaluate(&*preset, Some("misdeed")));
        // The hostile preset itself is not worse for it, either.
        let calm = evaluate(&*preset, None);
        assert!(
            matches!(calm, Ok(Verdict::Allow { .. })),
            "{what}: {calm:?}"
        );
        match fault {
            Err(fault) => fault,
            Ok(verdict) => panic!("{what} is not refused: {verdict:?}"),
        }
    }
}

/// Libtest keeps what tests print to itself; this is meant to be seen.
impl Drop for Street {
    fn drop(&mut self) {
        let _ = std::io::stderr().lock().write_all(self.shown.as_bytes());
    }
}

/// Asks about `tools/list`, or about a call of this tool.
pub fn evaluate(preset: &dyn Preset, tool: Option<&str>) -> Result<Verdict, PresetFault> {
    let call = Call {
        method: tool.map_or("tools/list", |_| "tools/call"),
        name: tool,
        arguments: None,
        host: "api.example.com",
    };
    let grant = GrantFacts {
        scopes: &ScopeSet::default(),
        account: None,
        facts: &[],
    };
    preset.evaluate(&call, &grant)
}

/// A provider that is named as its preset.
pub fn record(name: &str) -> Provider {
    Provider {
        name: ProviderName::parse(name).unwrap(),
        preset: PresetName::parse(name).unwrap(),
        request_timeout: Duration::from_secs(30),
        ..provider()
    }
}

/// Behaves on `tools/list` and misbehaves on a call with a name: the second
/// field of the record at the parameter's address. `$1` and up are `answers`.
pub fn on_a_named_call(misdeed: &str, answers: Vec<serde_json::Value>) -> Body {
    let text = format!(
        "(local $at i32) (if (i32.load8_u offset=8 (local.get 0)) (then {misdeed})) i32.const $0"
    );
    let answers = std::iter::once(allow()).chain(answers).collect();
    Body::Wat(text.leak(), answers)
}

/// `what: sentence` on a line of its own.
pub fn line(what: &str, sentence: &impl std::fmt::Display) -> String {
    format!("{what}\n    {sentence}\n")
}
