//! What was found out, for an administrator: each part with where it is from.

use countersign_oauth::discovery::{ClientPlan, Discovered, Step};
use serde::Serialize;
use url::Url;

use super::proposal::{Proposal, method_name};
use crate::registry::ProviderInput;

/// A part of a record, and where it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldReport {
    /// CONTRACT's field name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// The document, or what else said so.
    pub source: String,
}

/// One request, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct StepReport {
    /// Method and address.
    pub request: String,
    /// In Countersign's words.
    pub answer: String,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Report {
    /// The address that was asked about.
    pub discovered_from: String,
    /// `oauth`, or `none`: it answered without credentials.
    pub authorization: &'static str,
    /// How Countersign is its client: `dynamic`, `metadata_document`, `given` or
    /// `manual`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<&'static str>,
    /// Why an administrator has to register it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_advice: Option<String>,
    /// The redirect URI.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// What was found out.
    pub fields: Vec<FieldReport>,
    /// Scopes that the server knows: none of them is asked for because of that.
    pub scopes_offered: Vec<String>,
    /// What to look at.
    pub warnings: Vec<String>,
    /// Everything that was asked.
    pub steps: Vec<StepReport>,
    /// The provider that is created of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderInput>,
}

impl Report {
    pub(super) fn new(
        steps: Vec<Step>,
        found: Option<(&Discovered, &Proposal)>,
        typed: &Url,
        callback_url: Option<String>,
    ) -> Self {
        let mut report = Self {
            discovered_from: typed.to_string(),
            authorization: if found.is_some() { "oauth" } else { "none" },
            client: None,
            client_advice: None,
            callback_url,
            fields: Vec::new(),
            scopes_offered: Vec::new(),
            warnings: Vec::new(),
            steps: steps
                .into_iter()
                .map(|step| StepReport {
                    request: step.request,
                    answer: step.answer,
                })
                .collect(),
            provider: None,
        };
        let Some((found, proposal)) = found else {
            return report;
        };
        let (client, advice) = match &proposal.plan {
            ClientPlan::Given => ("given", None),
            ClientPlan::Document(_) => ("metadata_document", None),
            ClientPlan::Register { endpoint, method } => (
                "dynamic",
                Some(format!("at {endpoint}, as {}", method_name(*method))),
            ),
            ClientPlan::ByHand(why) => ("manual", Some((*why).to_owned())),
        };
        report.client = Some(client);
        report.client_advice = advice;
        report.fields = proposal
            .fields
            .iter()
            .map(|(name, value, source)| FieldReport {
                name,
                value: value.clone(),
                source: source.clone(),
            })
            .collect();
        let offered = found.resource.as_ref().map(|r| &r.scopes_supported);
        report.scopes_offered = offered
            .into_iter()
            .flat_map(|scopes| scopes.iter().map(ToString::to_string))
            .collect();
        report.warnings = found.warnings.clone();
        report.provider = Some(proposal.input.clone());
        report
    }
}
