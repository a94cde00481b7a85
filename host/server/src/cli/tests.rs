//! What the command line promises: its help, its usage errors.

use clap::{CommandFactory as _, Parser as _};

use super::{Cli, Verb};

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("countersign").chain(line.split(' ')))
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_is_what_it_was() {
    let mut command = Cli::command().term_width(100);
    let mut out = command.render_long_help().to_string();
    for path in [
        &["init"][..],
        &["provider", "create"],
        &["server", "create"],
        &["secret", "set"],
        &["token", "create"],
        &["user", "update"],
        &["team", "add-member"],
        &["role", "create"],
        &["preset"],
        &["preset", "approve"],
        &["preset", "diff"],
        &["preset", "rollback"],
        &["policy"],
        &["policy", "create"],
        &["key"],
        &["key", "rotate"],
        &["backup"],
        &["restore"],
    ] {
        let mut at = &mut command;
        for name in path {
            at = at.find_subcommand_mut(name).unwrap();
        }
        out.push_str(&format!("\n=== {}\n{}", path.join(" "), at.render_help()));
    }
    insta::with_settings!({filters => vec![(r"\[env: COUNTERSIGN_\w+=[^\]]*\]", "[env]")]}, {
        insta::assert_snapshot!(out);
    });
}

#[test]
fn a_usage_error_exits_with_2() {
    let cases = [
        "provider create",
        "provider create a --name b",
        "provider create a --token-auth-method magic",
        "server create a --endpoint https://x --command y",
        "server create a --header-prefix x",
        "secret set",
        "secret set A value-as-argument",
        "user create",
        "user create a --service --password-stdin",
        "user create a --password hunter2",
        "token create --name x",
        "team create",
        "team add-member lab",
        "team add-member lab ada --user grace",
        "role create x",
        "role update --allow audit_read",
        "user update",
        "token create --name x --kind other",
        "audit list --limit 0",
        "preset approve",
        "preset diff",
        "preset pin generic",
        "preset rollback",
        "policy create a --deny x --need-approval",
        "policy preview --tool x",
        "key",
        "key new",
        "backup",
        "restore",
        "restore b --force --salvage",
        "--output yaml whoami",
        "nonsense",
    ];
    for line in cases {
        assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
    }
}

#[test]
fn names_are_taken_as_arguments_and_as_options() {
    for line in [
        "provider create github --preset github --pkce --enabled false",
        "provider create --name github --scopes a,b --pkce=false",
        "provider update github --enabled",
        "server delete notes --force --output json",
        "preset approve github --provider github --url https://x --token y",
        "init --dir d --public-url http://127.0.0.1:1 --listen 127.0.0.1:1",
        "check --config x.toml",
        "audit list --user alice --outcome denied",
        "user update alice --enabled false --role user,auditor",
        "team create --name lab --display-name Lab",
        "team add-member lab alice",
        "team remove-member --team lab --user alice",
        "role create editor --allow server_update:notes server_list --allow audit_read,role_list",
        "token revoke abc --user bot",
        "token delete abc",
        "backup -",
        "backup b --offline",
        "backup verify b",
        "restore b --salvage --output json",
        "policy create no-deletes --deny --tools delete_*",
        "policy create careful --need-approval --message x --except-roles admin",
        "policy preview careful --user ann --server notes --tool t",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    assert!(matches!(parse("whoami").unwrap().verb, Verb::Whoami));
}
