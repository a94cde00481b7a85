//! x
use countersign_guest_sdk::prelude::*;
struct P;
impl Provider for P { fn describe(_: &mut Settings) -> Result<Description, String> { Ok(Description::oauth2("google","google")) } }
export_preset!(P);
