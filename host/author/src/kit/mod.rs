//! The conformance kit: runs a component through everything the host does with
//! it, against a provider in a box.
//!
//! Nothing here is a model of the host: consent, token answers, refresh,
//! decisions and injection are the host's own code, and only the network, the
//! clock and the store are stood in for. What the provider answers is made
//! from the description; what the vendor really answers, the author writes
//! into the table (`answers = [ … ]`), and it is held against the same code.

use std::path::Path;
use std::sync::Arc;

use countersign_core::preset::Description;
use countersign_oauth::Party;
use countersign_presets::{EngineConfig, LoadError, Trial, Workbench};

mod answers;
mod box_provider;
mod component;
mod consent;
mod hooks;
mod injection;
mod limits;
mod refresh;
pub(crate) mod report;
mod samples;
mod scopes;
mod stage;
mod table;

pub use report::{Check, Group, Outcome, Report, junit};
pub use table::{Case, Decision, Meaning, Record, Sample, Table, TableError};

/// Why the kit cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// The host would not load the component.
    #[error("the host would refuse this component: {0}")]
    Load(LoadError),
    /// The component refuses the provider's record.
    #[error(
        "the component does not serve a provider like this one: {0}\nIf it needs settings, write them into the table: [provider] settings = {{ … }}"
    )]
    Bind(LoadError),
    /// The kit's own surroundings could not be made.
    #[error("the kit cannot be set up: {0}")]
    Setup(String),
}

/// What the groups look at.
pub(crate) struct Subject {
    pub(crate) workbench: Workbench,
    pub(crate) trial: Trial,
    pub(crate) party: Party,
    pub(crate) table: Table,
}

impl Subject {
    /// Loads a component under the table's provider record.
    pub(crate) fn open(component: &Path, table: Table) -> Result<Self, KitError> {
        let workbench =
            Workbench::open(component, EngineConfig::default()).map_err(KitError::Load)?;
        let provider = stage::provider(workbench.name(), &table.record)?;
        let trial = workbench.bind(&provider).map_err(KitError::Bind)?;
        let party = Party {
            provider: Arc::new(provider),
            preset: trial.preset(),
        };
        Ok(Self {
            workbench,
            trial,
            party,
            table,
        })
    }

    pub(crate) fn description(&self) -> &Description {
        self.party.preset.description()
    }
}

/// Runs every check. Blocks while it compiles and judges.
///
/// # Errors
/// [`KitError`] if there is nothing to check; what does not hold is in the
/// report.
pub async fn run(component: &Path, table: Table) -> Result<Report, KitError> {
    let subject = Subject::open(component, table)?;
    let groups = vec![
        component::check(&subject),
        consent::check(&subject).await?,
        answers::check(&subject).await?,
        refresh::check(&subject).await?,
        scopes::check(&subject),
        injection::check(&subject).await?,
        hooks::check(&subject).await?,
        limits::check(&subject),
    ];
    let inspection = subject.workbench.inspection();
    Ok(Report {
        preset: subject.workbench.name().to_string(),
        version: subject.workbench.version().to_owned(),
        digest: subject.party.preset.digest().to_string(),
        size: inspection.entry.size.unwrap_or_default(),
        table: subject.table.file.clone(),
        groups,
    })
}
