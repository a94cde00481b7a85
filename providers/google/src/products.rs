//! Google's products: hosts, scopes and MCP servers.
//!
//! A scope that begins with `@` stands for Google's usual prefix, which would
//! otherwise be the greater part of the component's data.

use countersign_guest_sdk::prelude::*;

/// What `@` stands for.
const PREFIX: &str = "https://www.googleapis.com/auth/";

pub(crate) struct Product {
    pub(crate) name: &'static str,
    hosts: &'static [&'static str],
    scopes: &'static [(&'static str, &'static str, &'static [&'static str])],
    servers: &'static [Server],
}

struct Server {
    url: &'static str,
    title: &'static str,
    /// Empty where Google does not publish what a tool needs.
    tools: &'static [(&'static str, &'static [&'static str])],
}

pub(crate) const PRODUCTS: &[Product] = &[
    // Sign-in
    Product {
        name: "identity",
        hosts: &["openidconnect.googleapis.com", "www.googleapis.com"],
        scopes: &[
            ("openid", "Sign-in", &[]),
            ("email", "Address", &[]),
            ("profile", "Name and picture", &[]),
            ("@userinfo.email", "Address", &["email"]),
            ("@userinfo.profile", "Name", &["profile"]),
        ],
        servers: &[],
    },
    // Calendar, Docs, Sheets, Slides, Tasks and Contacts
    Product {
        name: "workspace",
        hosts: &[
            "www.googleapis.com",
            "calendar-json.googleapis.com",
            "docs.googleapis.com",
            "sheets.googleapis.com",
            "slides.googleapis.com",
            "tasks.googleapis.com",
            "people.googleapis.com",
            "calendarmcp.googleapis.com",
            "docsmcp.googleapis.com",
        ],
        scopes: &[
            (
                "@calendar",
                "All calendars",
                &["@calendar.events", "@calendar.readonly"],
            ),
            (
                "@calendar.readonly",
                "Read calendars",
                &["@calendar.events.readonly"],
            ),
            ("@calendar.events", "Events", &["@calendar.events.readonly"]),
            ("@calendar.events.readonly", "Read events", &[]),
            ("@calendar.calendarlist.readonly", "Calendar list", &[]),
            ("@calendar.freebusy", "Free/busy", &[]),
            ("@documents", "Docs", &["@documents.readonly"]),
            ("@documents.readonly", "Read docs", &[]),
            ("@spreadsheets", "Sheets", &["@spreadsheets.readonly"]),
            ("@spreadsheets.readonly", "Read sheets", &[]),
            ("@presentations", "Slides", &["@presentations.readonly"]),
            ("@presentations.readonly", "Read slides", &[]),
            ("@tasks", "Tasks", &[]),
            ("@contacts.readonly", "Contacts", &[]),
        ],
        servers: &[
            Server {
                url: "https://calendarmcp.googleapis.com/mcp/v1",
                title: "Google Calendar MCP",
                tools: &[
                    ("list_events", &[]),
                    ("get_event", &["@calendar.events"]),
                    ("list_calendars", &[]),
                    ("suggest_time", &[]),
                    ("create_event", &["@calendar.events"]),
                    ("update_event", &["@calendar.events"]),
                    ("delete_event", &["@calendar.events"]),
                    ("respond_to_event", &["@calendar.events"]),
                    ("search_events", &[]),
                ],
            },
            Server {
                url: "https://docsmcp.googleapis.com/mcp/v1",
                title: "Google Docs MCP",
                tools: &[],
            },
        ],
    },
    // Gmail
    Product {
        name: "gmail",
        hosts: &[
            "gmail.googleapis.com",
            "www.googleapis.com",
            "gmailmcp.googleapis.com",
        ],
        scopes: &[
            (
                "https://mail.google.com/",
                "Full mailbox",
                &[
                    "@gmail.modify",
                    "@gmail.readonly",
                    "@gmail.compose",
                    "@gmail.send",
                ],
            ),
            ("@gmail.readonly", "Read", &["@gmail.metadata"]),
            (
                "@gmail.modify",
                "Read and write, no purge",
                &["@gmail.readonly", "@gmail.compose", "@gmail.labels"],
            ),
            ("@gmail.compose", "Drafts and send", &["@gmail.send"]),
            ("@gmail.send", "Send", &[]),
            ("@gmail.labels", "Labels", &[]),
            ("@gmail.metadata", "Headers only", &[]),
            ("@gmail.insert", "Insert", &[]),
            ("@gmail.settings.basic", "Settings", &[]),
            ("@gmail.settings.sharing", "Delegation", &[]),
        ],
        servers: &[Server {
            url: "https://gmailmcp.googleapis.com/mcp/v1",
            title: "Gmail MCP",
            tools: &[
                ("create_draft", &[]),
                ("list_drafts", &[]),
                ("get_draft", &[]),
                ("get_thread", &[]),
                ("get_message", &[]),
                ("search_threads", &[]),
                ("list_labels", &[]),
                ("create_label", &[]),
                ("update_message_labels", &[]),
            ],
        }],
    },
    // Drive
    Product {
        name: "drive",
        hosts: &[
            "www.googleapis.com",
            "drive.googleapis.com",
            "drivemcp.googleapis.com",
        ],
        scopes: &[
            (
                "@drive",
                "All files",
                &["@drive.readonly", "@drive.file", "@drive.metadata"],
            ),
            ("@drive.readonly", "Read all", &["@drive.metadata.readonly"]),
            ("@drive.file", "Files of this app", &[]),
            ("@drive.metadata", "Metadata", &["@drive.metadata.readonly"]),
            ("@drive.metadata.readonly", "Read metadata", &[]),
            ("@drive.appdata", "App folder", &[]),
            ("@drive.activity.readonly", "Activity", &[]),
        ],
        servers: &[Server {
            url: "https://drivemcp.googleapis.com/mcp/v1",
            title: "Google Drive MCP",
            tools: &[
                ("search_files", &[]),
                ("list_recent_files", &[]),
                ("get_file_metadata", &[]),
                ("get_file_permissions", &[]),
                ("read_file_content", &[]),
                ("download_file_content", &[]),
                ("create_file", &[]),
                ("copy_file", &[]),
            ],
        }],
    },
    // BigQuery
    Product {
        name: "bigquery",
        hosts: &["bigquery.googleapis.com", "bigquerystorage.googleapis.com"],
        scopes: &[
            (
                "@bigquery",
                "Data and jobs",
                &["@bigquery.readonly", "@bigquery.insertdata"],
            ),
            ("@bigquery.readonly", "Read", &[]),
            ("@bigquery.insertdata", "Stream", &[]),
            ("@cloud-platform", "All of Google Cloud", &["@bigquery"]),
            (
                "@cloud-platform.read-only",
                "Read all",
                &["@bigquery.readonly"],
            ),
            ("@devstorage.read_only", "Storage", &[]),
        ],
        servers: &[Server {
            url: "https://bigquery.googleapis.com/mcp",
            title: "BigQuery MCP",
            tools: &[],
        }],
    },
];

impl Product {
    pub(crate) fn describe(&self, mut description: Description) -> Description {
        for host in self.hosts {
            let host = template(host);
            if !description.audience_hosts.contains(&host) {
                description.audience_hosts.push(host);
            }
        }
        description = description.scopes(self.scopes.iter().map(|(name, title, implies)| {
            let mut scope = Scope::new(&full(name), title);
            scope.implies = implies.iter().map(|name| full(name)).collect();
            scope
        }));
        for server in self.servers {
            let tools = server.tools.iter().map(|(name, needs)| Tool {
                name: (*name).into(),
                needs: needs.iter().map(|scope| vec![full(scope)]).collect(),
                broad: false,
            });
            description = description
                .mcp_server(McpServer::new(server.url, server.title, "2026-08-31").tools(tools));
        }
        description
    }
}

pub(crate) fn full(scope: &str) -> String {
    match scope.strip_prefix('@') {
        Some(rest) => [PREFIX, rest].concat(),
        None => scope.into(),
    }
}
