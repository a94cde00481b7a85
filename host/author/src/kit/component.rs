//! The component itself.

use super::Subject;
use super::report::Group;

/// From here on a preset takes noticeably longer to load. In bytes.
const LARGE: u64 = 1 << 20;

pub(super) fn check(subject: &Subject) -> Group {
    let mut group = Group::new("Component");
    let inspection = subject.workbench.inspection();
    group.pass("the host loads it: its imports, its interface, what it describes");

    let size = inspection.entry.size.unwrap_or_default();
    // Of JavaScript and Python, several megabytes are the language's own.
    if size <= LARGE {
        group.pass("it is small");
    } else {
        group.skip(
            "it is small",
            format!(
                "{:.1} MB, as languages with a runtime of their own are",
                size as f64 / 1e6
            ),
        );
    }

    let said = &subject.description().version;
    group.equal(
        "the version it says is the one in its file name",
        subject.workbench.version(),
        said.as_str(),
        "build it with `preset build`, which names the file after Cargo.toml",
    );

    // Hosts of the vendor's own servers must be reachable with its tokens.
    let d = subject.description();
    let name = "its MCP servers stand on hosts its tokens may go to";
    if d.mcp_servers.is_empty() {
        group.skip(name, "it describes none");
    } else {
        let audience: Vec<String> = super::stage::audience(&subject.party);
        match super::injection::server_off_audience(subject) {
            None => group.pass(name),
            Some(host) => group.fail(
                name,
                format!("one of {}", audience.join(", ")),
                host,
                "add the host to `.audience([…])`, or take the server out",
            ),
        }
    }
    group
}
