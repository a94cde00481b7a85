//! Small builders for the rest of the vocabulary.

use crate::data::{
    Credential, Header, McpServer, Metadata, Parameter, Registration, Rule, Scope, ScopeParameter,
    Sigv4, Source, Tool, ValueKind, Variable, VariantInfo,
};
use crate::text::{Text, header};

fn owned<'a>(list: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    list.into_iter().map(Into::into).collect()
}

impl Scope {
    /// A scope and what it allows, in a few words.
    pub fn new(name: &str, title: &str) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            implies: Vec::new(),
            parameter: None,
            prefix: false,
        }
    }

    /// It includes these.
    pub fn implies<'a>(mut self, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        self.implies = owned(scopes);
        self
    }

    /// It belongs to this scope parameter.
    pub fn parameter(mut self, name: &str) -> Self {
        self.parameter = Some(name.into());
        self
    }

    /// The name is a prefix.
    pub fn prefix(mut self) -> Self {
        self.prefix = true;
        self
    }
}

impl From<&str> for Scope {
    fn from(name: &str) -> Self {
        Self::new(name, name)
    }
}

impl ScopeParameter {
    /// The scopes it carries are those of this credential.
    pub fn credential(mut self, name: &str) -> Self {
        self.credential = Some(name.into());
        self
    }
}

impl Variable {
    /// A variable the administrator sets, under the settings key of its name.
    pub fn setting(name: &str, title: &str, kind: ValueKind) -> Self {
        Self::new(name, title, kind, Source::Setting(name.into()))
    }

    /// A variable from anywhere.
    pub fn new(name: &str, title: &str, kind: ValueKind, source: Source) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            source,
            kind,
            default_value: None,
            required: true,
        }
    }

    /// Its value when there is no other.
    pub fn or(mut self, value: &str) -> Self {
        self.default_value = Some(value.into());
        self
    }

    /// It may be missing.
    pub fn optional(mut self) -> Self {
        self.required = false;
        self
    }
}

impl Metadata {
    /// Something of the token answer to remember and to show.
    pub fn new(name: &str, pointer: &str, kind: ValueKind) -> Self {
        Self {
            name: name.into(),
            pointer: pointer.into(),
            kind,
        }
    }
}

impl Rule {
    /// Sets a header.
    pub fn header(name: &str, value: impl Text) -> Self {
        Self::SetHeader(header(name, value))
    }

    /// A place for a header that the hook `sign` sets: described, so that an
    /// administrator can approve it, and left out where it is not set.
    pub fn signed(name: &str) -> Self {
        Self::SetHeader(Header {
            name: name.into(),
            value: Vec::new(),
        })
    }

    /// Appends a query parameter.
    pub fn query(name: &str, value: impl Text) -> Self {
        Self::SetQuery(Parameter {
            name: name.into(),
            value: value.into_template(),
        })
    }
}

impl Credential {
    /// A credential and the rules that send it.
    pub fn new(name: &str, title: &str, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            hosts: Vec::new(),
            rules: rules.into_iter().collect(),
            sigv4: None,
        }
    }

    /// An access token, sent as a bearer.
    pub fn bearer(name: &str, title: &str) -> Self {
        Self::new(
            name,
            title,
            [Rule::header("authorization", crate::text::bearer())],
        )
    }

    /// An AWS key, with which the host signs each request (Signature Version 4).
    /// The key is what `aws configure export-credentials` prints.
    pub fn sigv4(name: &str, title: &str, service: impl Text, region: impl Text) -> Self {
        Self {
            sigv4: Some(Sigv4 {
                service: service.into_template(),
                region: region.into_template(),
            }),
            ..Self::new(name, title, [])
        }
    }

    /// It goes to these hosts only.
    pub fn hosts<T: Text>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.hosts = hosts.into_iter().map(Text::into_template).collect();
        self
    }
}

impl Tool {
    /// A tool that needs all of these scopes.
    pub fn needs<'a>(name: &str, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let needs = scopes.into_iter().map(|scope| vec![scope.into()]).collect();
        Self {
            name: name.into(),
            needs,
            broad: false,
        }
    }

    /// A tool that needs any one of these scopes.
    pub fn needs_any<'a>(name: &str, scopes: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.into(),
            needs: vec![owned(scopes)],
            broad: false,
        }
    }

    /// A tool of which only the arguments say what it needs.
    pub fn broad(name: &str) -> Self {
        Self {
            name: name.into(),
            needs: Vec::new(),
            broad: true,
        }
    }
}

impl McpServer {
    /// A vendor's server, as it was on that day, registered in advance.
    pub fn new(url: impl Text, title: &str, as_of: &str) -> Self {
        Self {
            url: url.into_template(),
            title: title.into(),
            tools: Vec::new(),
            own_authorization_server: false,
            registration: Registration::PreRegistered,
            as_of: as_of.into(),
        }
    }

    /// Its tools.
    pub fn tools(mut self, tools: impl IntoIterator<Item = Tool>) -> Self {
        self.tools = tools.into_iter().collect();
        self
    }

    /// How clients come to be known there.
    pub fn registration(mut self, registration: Registration) -> Self {
        self.registration = registration;
        self
    }

    /// Its tokens come from its own authorization server.
    pub fn own_authorization_server(mut self) -> Self {
        self.own_authorization_server = true;
        self
    }
}

impl VariantInfo {
    /// A generation of the provider's endpoints.
    pub fn new(name: &str, title: &str, selected: bool) -> Self {
        Self {
            name: name.into(),
            title: title.into(),
            selected,
            ends_on: None,
        }
    }

    /// The day it ends.
    pub fn ends_on(mut self, day: &str) -> Self {
        self.ends_on = Some(day.into());
        self
    }
}
