//! The agents on the official SDKs, run as programs.

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::host::Host;
use crate::process::repository;

/// An SDK in one of its eras.
#[derive(Debug, Clone, Copy)]
pub struct Sdk {
    /// For people.
    pub name: &'static str,
    /// The revision it then speaks.
    pub revision: &'static str,
    program: &'static str,
    flags: &'static [&'static str],
}

/// All of them.
pub const SDKS: &[Sdk] = &[
    Sdk {
        name: "TypeScript v1",
        revision: "2025-11-25",
        program: "agents/agent-ts-v1.mjs",
        flags: &[],
    },
    Sdk {
        name: "TypeScript v2",
        revision: "2026-07-28",
        program: "agents/agent-ts-v2.mjs",
        flags: &[],
    },
    Sdk {
        name: "TypeScript v2",
        revision: "2025-11-25",
        program: "agents/agent-ts-v2.mjs",
        flags: &["--era", "2025-11-25"],
    },
    Sdk {
        name: "TypeScript v2",
        revision: "2025-06-18",
        program: "agents/agent-ts-v2.mjs",
        flags: &["--era", "2025-06-18"],
    },
    Sdk {
        name: "TypeScript v2",
        revision: "2025-03-26",
        program: "agents/agent-ts-v2.mjs",
        flags: &["--era", "2025-03-26"],
    },
    Sdk {
        name: "Python",
        revision: "2026-07-28",
        program: "agents/agent_py.py",
        flags: &["--era", "2026-07-28"],
    },
    Sdk {
        name: "Python",
        revision: "2025-11-25",
        program: "agents/agent_py.py",
        flags: &["--era", "2025"],
    },
];

/// What an agent did.
pub struct Run {
    /// Its exit status.
    pub status: i32,
    /// Its lines.
    pub lines: Vec<Value>,
    /// Everything it wrote, as it is.
    pub output: String,
}

impl Run {
    /// The lines of this step.
    pub fn of(&self, step: &str) -> Vec<&Value> {
        self.lines
            .iter()
            .filter(|line| line["step"] == step)
            .collect()
    }

    /// The last result of a tool, as text.
    pub fn text(&self, tool: &str) -> &str {
        self.lines
            .iter()
            .rfind(|line| line["step"] == "call" && line["tool"] == tool)
            .and_then(|line| line["result"]["content"][0]["text"].as_str())
            .unwrap_or_default()
    }

    fn parse(status: i32, output: String) -> Self {
        let lines = output
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Self {
            status,
            lines,
            output,
        }
    }
}

/// An agent that takes orders on its stdin.
pub struct Live {
    _child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Live {
    /// Sends an order.
    ///
    /// # Errors
    /// If it has ended.
    pub async fn order(&mut self, order: &Value) -> Result<()> {
        self.stdin
            .write_all(format!("{order}\n").as_bytes())
            .await
            .context("the agent has ended")
    }

    /// Its next line of this step.
    ///
    /// # Errors
    /// If it ends before.
    pub async fn line(&mut self, step: &str) -> Result<Value> {
        let mut seen = Vec::new();
        while let Some(line) = self.lines.next_line().await? {
            if let Ok(value) = serde_json::from_str::<Value>(&line)
                && value["step"] == step
            {
                return Ok(value);
            }
            seen.push(line);
        }
        anyhow::bail!("the agent ended without {step}:\n{}", seen.join("\n"))
    }
}

impl Sdk {
    fn command(&self, url: &str, arguments: &[&str]) -> Command {
        let folder = repository().join("tests/counterparts");
        let interpreter = if self.program.ends_with(".py") {
            folder.join("venv/bin/python")
        } else {
            folder.join("node_modules/.bin/node")
        };
        let mut command = Command::new(interpreter);
        command
            .arg(self.program)
            .args(["--url", url])
            .args(self.flags)
            .args(arguments)
            .current_dir(folder)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs the agent to its end.
    ///
    /// # Errors
    /// If it cannot be run.
    pub async fn run(&self, host: &Host, path: &str, arguments: &[&str]) -> Result<Run> {
        let output = self.command(&host.at(path), arguments).output().await?;
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        Ok(Run::parse(output.status.code().unwrap_or(-1), text))
    }

    /// Starts the agent so that it takes orders.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn live(&self, host: &Host, path: &str, arguments: &[&str]) -> Result<Live> {
        let mut command = self.command(&host.at(path), arguments);
        let mut child = command
            .arg("--stdin")
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::inherit())
            .spawn()?;
        Ok(Live {
            stdin: child.stdin.take().context("no stdin")?,
            lines: BufReader::new(child.stdout.take().context("no stdout")?).lines(),
            _child: child,
        })
    }
}
