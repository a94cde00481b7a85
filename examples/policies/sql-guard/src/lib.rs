//! A policy that reads SQL: one statement that only reads passes, one that
//! writes wants the user's word, several at once are refused.
//!
//! Settings: `argument` (where the statement stands; `query` if absent) and
//! `refuse_writes` (true to refuse writes instead of asking).

use countersign_guest_sdk::policy::prelude::*;

/// Words with which a statement that only reads begins.
const READS: [&str; 5] = ["select", "with", "show", "describe", "explain"];
/// Words that write, wherever they stand outside of texts and comments.
const WRITES: [&str; 17] = [
    "insert", "update", "delete", "merge", "replace", "drop", "alter", "create", "truncate",
    "grant", "revoke", "copy", "call", "do", "into", "lock", "set",
];

struct SqlGuard;

impl Policy for SqlGuard {
    fn describe(settings: &mut Settings) -> Result<Description, String> {
        argument(settings)?;
        settings.flag("refuse_writes")?;
        Ok(Description::new("sql-guard", "SQL guard").wants(Wants::ARGUMENTS))
    }

    fn judge(
        _: &Caller,
        call: &Call,
        _: &Grant,
        settings: &mut Settings,
    ) -> Result<Judgement, String> {
        let name = argument(settings)?;
        let arguments = Arguments::parse(call.arguments.as_deref())?;
        let Some(statement) = arguments.text(&name) else {
            // A tool without a statement is none of this policy's business.
            return Ok(match arguments.member(&name) {
                None => Judgement::Allow,
                Some(_) => Judgement::deny("sql_not_text", "The statement is no text."),
            });
        };
        Ok(match look_at(statement) {
            Statement::Reads => Judgement::Allow,
            Statement::Several => Judgement::deny(
                "several_statements",
                "Only one statement may be sent at a time.",
            ),
            Statement::Writes if settings.flag("refuse_writes")? == Some(true) => {
                Judgement::deny("read_only", "Only statements that read are allowed.")
            }
            Statement::Writes => Judgement::ask("This statement changes data."),
        })
    }
}

fn argument(settings: &mut Settings) -> Result<String, String> {
    Ok(settings.text("argument")?.unwrap_or_else(|| "query".into()))
}

#[derive(Debug, PartialEq)]
enum Statement {
    Reads,
    Writes,
    Several,
}

/// In doubt it writes: a word that could be a column's name asks once too often.
fn look_at(sql: &str) -> Statement {
    let bare = without_texts(sql);
    let bare = bare.trim().trim_end_matches(';');
    if bare.contains(';') {
        return Statement::Several;
    }
    let mut words = bare
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase);
    let reads = words.next().is_some_and(|w| READS.contains(&&*w));
    if reads && !words.any(|w| WRITES.contains(&&*w)) {
        Statement::Reads
    } else {
        Statement::Writes
    }
}

/// The statement with texts and quoted names emptied. A comment stays: what one
/// database takes for a comment is code for another (`/*! … */`).
fn without_texts(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut quote = None;
    for c in sql.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            // Whether a backslash escapes differs, too: what follows is code.
            Some(_) if c == '\\' => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"' | '`') => {
                quote = Some(c);
                out.push(' ');
            }
            None => out.push(c),
        }
    }
    out
}

export_policy!(SqlGuard);

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(settings: &str, arguments: &str) -> Judgement {
        let caller = Caller {
            user: String::new(),
            client: String::new(),
            team: "default".into(),
            roles: vec![],
        };
        let call = Call {
            server: "db".into(),
            method: "tools/call".into(),
            name: Some("query".into()),
            arguments: Some(arguments.into()),
        };
        let grant = Grant {
            scopes: vec![],
            account: None,
        };
        countersign_guest_sdk::policy::judge::<SqlGuard>(&caller, &call, &grant, settings).unwrap()
    }

    #[test]
    fn what_reads_passes_and_what_writes_asks() {
        let cases = [
            ("select 1", Statement::Reads),
            (
                "SELECT name FROM t WHERE x = 'drop table; --';",
                Statement::Reads,
            ),
            ("with a as (select 1) select * from a", Statement::Reads),
            (
                "with a as (delete from t returning *) select * from a",
                Statement::Writes,
            ),
            ("select * into copy from t", Statement::Writes),
            ("update t set x = 1", Statement::Writes),
            ("/* select */ drop table t", Statement::Writes),
            ("vacuum", Statement::Writes),
            ("", Statement::Writes),
            ("select 1; drop table t", Statement::Several),
            ("select 'a\\'; drop table t; --'", Statement::Several),
        ];
        for (sql, expected) in cases {
            assert_eq!(look_at(sql), expected, "{sql}");
        }
    }

    #[test]
    fn settings_say_where_the_statement_stands_and_what_becomes_of_writes() {
        let write = r#"{"query":"delete from t","sql":"select 1"}"#;
        assert!(matches!(judged("{}", write), Judgement::NeedApproval(_)));
        assert_eq!(judged(r#"{"argument":"sql"}"#, write), Judgement::Allow);
        let refused = judged(r#"{"refuse_writes":true}"#, write);
        assert!(matches!(refused, Judgement::Deny(r) if r.code == "read_only"));
        assert_eq!(judged("{}", r#"{"other":1}"#), Judgement::Allow);
        assert!(matches!(
            judged("{}", r#"{"query":["x"]}"#),
            Judgement::Deny(_)
        ));
        let describe = countersign_guest_sdk::policy::describe::<SqlGuard>;
        assert!(describe(r#"{"typo":1}"#).is_err());
        assert_eq!(describe("{}").unwrap().wants, Wants::ARGUMENTS);
    }
}
