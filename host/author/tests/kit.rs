//! The kit over real components: the first-party presets with their tables,
//! and a component with faults.

use std::path::{Path, PathBuf};

use countersign_author::bench;
use countersign_author::kit::{self, Outcome, Report, Table};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn component(path: &str) -> PathBuf {
    let path = repository().join(path);
    assert!(
        path.is_file(),
        "{} is not built: run `cargo xtask presets` and `cargo xtask presets --fixtures`",
        path.display()
    );
    path
}

fn table(text: &str) -> Table {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scopes.toml");
    std::fs::write(&path, text).unwrap();
    Table::read(&path).unwrap()
}

async fn first_party(name: &str, table: Table) -> Report {
    let component = component(&format!("catalog/{name}-0.1.0.wasm"));
    kit::run(&component, table).await.unwrap()
}

fn failed(report: &Report) -> Vec<String> {
    let checks = report.groups.iter().flat_map(|group| &group.checks);
    checks
        .filter(|check| matches!(check.outcome, Outcome::Failed { .. }))
        .map(|check| check.name.clone())
        .collect()
}

#[tokio::test]
async fn every_preset_of_ours_passes_with_each_of_its_tables() {
    let mut tables = 0;
    for name in ["generic", "github", "google", "slack"] {
        let folder = repository().join("providers").join(name);
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|e| e != "toml") || path.ends_with("Cargo.toml") {
                continue;
            }
            tables += 1;
            let report = first_party(name, Table::read(&path).unwrap()).await;
            assert!(report.is_good(), "{}", report.text());
            assert!(report.counts().0 > 40, "{}", report.text());
        }
    }
    assert_eq!(tables, 6);
}

#[tokio::test]
async fn a_wrong_row_fails_with_what_came_instead() {
    let table = table(
        r#"cases = [
  { tool = "issue_read", granted = "public_repo", expect = "allow" },
  { tool = "get_me",     granted = "",            expect = "need repo" },
  { tool = "get_me",     granted = "",            expect = "allow" },
]
answers = [
  { body = '{"error":"bad_verification_code"}', expect = "tokens" },
  { refresh = true, status = 503, body = '{}', expect = "ended" },
]"#,
    );
    let report = first_party("github", table).await;
    assert_eq!(
        failed(&report),
        [
            "scopes.toml:7 tokens",
            "scopes.toml:8 refresh: ended",
            "scopes.toml:2 issue_read with public_repo: allow",
            "scopes.toml:3 get_me with nothing: need repo",
        ]
    );
    let text = report.text();
    assert!(text.contains("came      need repo"), "{text}");
}

#[tokio::test]
async fn a_provider_record_that_says_too_little_is_told_what_to_write() {
    let report = first_party("generic", Table::default()).await;
    assert_eq!(failed(&report), ["a sign-in begins", "tokens go somewhere"]);
    assert!(report.text().contains("[provider]"), "{}", report.text());
}

#[tokio::test]
async fn settings_that_the_preset_refuses_end_the_run_with_its_words() {
    let component = component("catalog/github-0.1.0.wasm");
    let table = table("[provider]\nsettings = { hots = \"x\" }");
    let error = kit::run(&component, table).await.unwrap_err().to_string();
    assert!(error.contains("unknown setting `hots`"), "{error}");
}

#[tokio::test]
async fn what_is_no_component_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme-0.1.0.wasm");
    std::fs::write(&path, b"\0asm\x01\0\0\0").unwrap();
    let error = kit::run(&path, Table::default()).await.unwrap_err();
    assert!(error.to_string().contains("core module"), "{error}");
}

#[tokio::test]
async fn the_same_component_gets_the_same_report() {
    let path = repository().join("providers/slack/scopes.toml");
    let mut reports = Vec::new();
    for _ in 0..2 {
        let report = first_party("slack", Table::read(&path).unwrap()).await;
        reports.push(serde_json::to_string(&report).unwrap());
    }
    assert_eq!(reports[0], reports[1]);
}

#[tokio::test]
async fn a_component_that_crashes_loops_or_is_greedy_fails_by_name_and_the_run_ends() {
    let component = component("tests/fixtures/presets/out/faults-0.1.0.wasm");
    let record = r#"
[provider]
authorization_endpoint = "https://auth.example.com/authorize"
token_endpoint = "https://auth.example.com/token"
audience_hosts = ["mcp.example.com"]
"#;
    let cases = ["trap", "loop", "bomb", "panic", "overflow", "header-host"]
        .map(|tool| format!("  {{ tool = \"{tool}\", granted = \"\", expect = \"allow\" }},\n"));
    let cases = format!("cases = [\n{}]\n{record}", cases.concat());
    let report = kit::run(&component, table(&cases)).await.unwrap();
    let text = report.text();
    for (tool, said) in [
        ("trap", "crashed"),
        ("loop", "did not answer in time"),
        ("bomb", "asked for more memory"),
        ("panic", "crashed"),
        ("overflow", "crashed"),
        ("header-host", "is not allowed"),
    ] {
        let line = text
            .lines()
            .position(|l| l.contains(&format!(" {tool} with")));
        let after: Vec<&str> = text.lines().skip(line.expect(tool)).take(4).collect();
        assert!(after.join(" ").contains(said), "{tool}: {text}");
    }
    assert_eq!(failed(&report).len(), 6, "{text}");
    // One that cannot even say what it is.
    for (fault, said) in [
        ("trap", "crashed"),
        ("loop", "did not answer in time"),
        ("bomb", "asked for more memory"),
    ] {
        let text = format!("{record}settings = {{ fault = \"{fault}\" }}");
        let error = kit::run(&component, table(&text)).await.unwrap_err();
        assert!(error.to_string().contains(said), "{fault}: {error}");
    }
}

#[test]
fn the_bench_measures_the_tables_first_case() {
    let component = component("catalog/github-0.1.0.wasm");
    let path = repository().join("providers/github/scopes.toml");
    let figures = bench::run(&component, Table::read(&path).unwrap(), 50).unwrap();
    assert_eq!(figures.call, "get_me");
    assert_eq!(figures.fresh.calls, 50);
    assert!(figures.fresh.p50 > 0 && figures.fresh.p99 >= figures.fresh.p50);
    assert!(figures.kept.calls >= 50 && figures.kept.mean > 0);
    assert!(figures.memory >= 65_536 && figures.load > 0);
    assert!(figures.text().contains("fresh sandbox"));
}
