//! Collects a message's members in the one walk over it.

use std::borrow::Cow;

use serde::de::MapAccess;

use super::{Id, Meta, Params};
use crate::strict::{Any, Nothing, Take, Walk};

/// A message's members as they were found.
#[derive(Default)]
pub(super) struct Parts<'a> {
    pub(super) jsonrpc: Option<Cow<'a, str>>,
    pub(super) id: Option<&'a str>,
    pub(super) method: Option<Cow<'a, str>>,
    pub(super) has_method: bool,
    pub(super) params: Params<'a>,
    pub(super) result: Option<&'a str>,
    pub(super) error: Option<&'a str>,
}

impl<'de> Take<'de> for Parts<'de> {
    fn member<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        walk: &mut Walk<'de>,
        depth: usize,
    ) -> Result<(), A::Error> {
        match name {
            "jsonrpc" => self.jsonrpc = walk.text(map, depth)?,
            "id" => self.id = Some(walk.raw(map, depth)?),
            "method" => {
                self.has_method = true;
                self.method = walk.text(map, depth)?;
            }
            "params" => {
                self.params.present = true;
                map.next_value_seed(Any {
                    walk,
                    depth,
                    take: &mut self.params,
                })?;
            }
            "result" => self.result = Some(walk.raw(map, depth)?),
            "error" => self.error = Some(walk.raw(map, depth)?),
            _ => map.next_value_seed(Any {
                walk,
                depth,
                take: &mut Nothing,
            })?,
        }
        Ok(())
    }
}

impl<'de> Take<'de> for Params<'de> {
    fn other(&mut self) {
        self.wrong.get_or_insert("params must be an object");
    }
    fn member<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        walk: &mut Walk<'de>,
        depth: usize,
    ) -> Result<(), A::Error> {
        match name {
            "name" => self.name = walk.text(map, depth)?,
            "uri" => self.uri = walk.text(map, depth)?,
            "taskId" => self.task_id = walk.text(map, depth)?,
            "arguments" => self.arguments = Some(walk.raw(map, depth)?),
            "_meta" => {
                map.next_value_seed(Any {
                    walk,
                    depth,
                    take: &mut self.meta,
                })?;
                self.wrong = self.wrong.or(self.meta.wrong);
            }
            "inputResponses" => {
                let raw = walk.raw(map, depth)?;
                self.object(raw, "inputResponses must be an object");
                self.input_responses = Some(raw);
            }
            "requestState" => {
                self.request_state = walk.text(map, depth)?;
                if self.request_state.is_none() {
                    self.wrong.get_or_insert("requestState must be a string");
                }
            }
            "protocolVersion" => self.protocol_version = walk.text(map, depth)?,
            "capabilities" => self.capabilities = Some(walk.raw(map, depth)?),
            "clientInfo" => self.client_info = Some(walk.raw(map, depth)?),
            _ => map.next_value_seed(Any {
                walk,
                depth,
                take: &mut Nothing,
            })?,
        }
        Ok(())
    }
}

impl Params<'_> {
    fn object(&mut self, raw: &str, wrong: &'static str) {
        if !raw.starts_with('{') {
            self.wrong.get_or_insert(wrong);
        }
    }
}

impl<'de> Take<'de> for Meta<'de> {
    fn other(&mut self) {
        self.wrong.get_or_insert("_meta must be an object");
    }
    fn member<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        map: &mut A,
        walk: &mut Walk<'de>,
        depth: usize,
    ) -> Result<(), A::Error> {
        let wrong = match name {
            "progressToken" => {
                self.progress_token = Id::parse(walk.raw(map, depth)?);
                (
                    self.progress_token.is_none(),
                    "progressToken must be a string or an integer",
                )
            }
            "io.modelcontextprotocol/protocolVersion" => {
                self.protocol_version = walk.text(map, depth)?;
                (
                    self.protocol_version.is_none(),
                    "_meta's protocolVersion must be a string",
                )
            }
            "io.modelcontextprotocol/clientCapabilities" => {
                let raw = walk.raw(map, depth)?;
                self.client_capabilities = Some(raw);
                (
                    !raw.starts_with('{'),
                    "_meta's clientCapabilities must be an object",
                )
            }
            "io.modelcontextprotocol/clientInfo" => {
                let raw = walk.raw(map, depth)?;
                self.client_info = Some(raw);
                (
                    !raw.starts_with('{'),
                    "_meta's clientInfo must be an object",
                )
            }
            _ => {
                return map.next_value_seed(Any {
                    walk,
                    depth,
                    take: &mut Nothing,
                });
            }
        };
        if let (true, wrong) = wrong {
            self.wrong.get_or_insert(wrong);
        }
        Ok(())
    }
}
