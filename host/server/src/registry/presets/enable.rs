//! Which presets may be used at all.

use countersign_core::caller::Caller;
use countersign_core::names::PresetName;
use countersign_presets::FileState;

use super::told;
use crate::registry::{Refusal, Registry};

impl Registry {
    /// Lets providers use a preset.
    ///
    /// # Errors
    /// [`Refusal`]; one that is not in the catalog is told with what is.
    pub async fn enable_preset(&self, caller: &Caller, name: &str) -> Result<PresetName, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", crate::registry::text::cut(name));
        let work = async {
            let (entry, preset) = self.catalog_entry(name)?;
            caller
                .permissions
                .demand("preset_enable", Some(preset.as_str()))?;
            if let FileState::Refused { reason } = &entry.state {
                return Err(Refusal::invalid(
                    "name",
                    format!("the component {} was refused: {reason}", entry.file),
                ));
            }
            self.store_enablement(caller, &preset, |document| {
                document.enabled = true;
                Ok(())
            })
            .await?;
            self.bind_those_of(&preset).await;
            let digest = entry.digest.map_or_else(String::new, |d| d.to_string());
            let origin = entry.origin.as_ref().map_or_else(String::new, told);
            let detail = format!("{} {digest}, {origin}", entry.file);
            Ok((preset, detail))
        };
        let result = work.await;
        self.conclude(caller, "preset.enable", resource, result)
            .await
    }

    /// Takes a preset away from providers: their calls fail until it is
    /// enabled again.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn disable_preset(&self, caller: &Caller, name: &str) -> Result<PresetName, Refusal> {
        let _writing = self.writing.lock().await;
        let resource = format!("preset:{}", crate::registry::text::cut(name));
        let work = async {
            // One that was taken out of the catalog can still be disabled.
            let preset = self.known_preset(name)?;
            let snapshot = self.snapshot();
            caller
                .permissions
                .demand("preset_enable", Some(preset.as_str()))?;
            self.store_enablement(caller, &preset, |document| {
                document.enabled = false;
                Ok(())
            })
            .await?;
            let mut used = Vec::new();
            for provider in snapshot
                .providers
                .values()
                .filter(|p| p.value.preset == preset)
            {
                self.unbind(&provider.value.name).await;
                used.push(provider.value.name.to_string());
            }
            used.sort();
            let detail = if used.is_empty() {
                String::new()
            } else {
                format!("used by {}", used.join(", "))
            };
            Ok((preset, detail))
        };
        let result = work.await;
        self.conclude(caller, "preset.disable", resource, result)
            .await
    }
}
