//! Child processes, their output, and where built things are.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// The repository that the tests were built from.
pub fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo put what it built: this program is in `deps` of it.
pub fn target_folder() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let deps = this.parent().unwrap_or(Path::new("."));
    match deps.file_name() {
        Some(name) if name == "deps" => deps.parent().unwrap_or(deps).to_path_buf(),
        _ => deps.to_path_buf(),
    }
}

/// A program of this workspace, built beforehand.
///
/// # Errors
/// If it is not there.
pub fn built(name: &str) -> Result<PathBuf> {
    let file = target_folder().join(name);
    if !file.exists() {
        bail!(
            "{} is not built: run `cargo xtask test`, or `cargo build --workspace --all-targets` \
             before the tests",
            file.display()
        );
    }
    Ok(file)
}

/// A port nobody listens on. Another process may take it first; whoever fails
/// to bind it asks again.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Everything a process wrote.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<String>>);

impl Log {
    /// What there is so far.
    pub fn text(&self) -> String {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The last lines.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let all: Vec<_> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Puts what an earlier process wrote in front.
    pub(crate) fn prepend(&self, earlier: &Self) {
        let earlier = earlier.text();
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.insert_str(0, &earlier);
    }

    fn push(&self, line: &str) {
        let mut text = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(line);
        text.push('\n');
    }

    /// Keeps what is written there, line by line.
    pub(crate) fn follow(&self, source: impl AsyncRead + Unpin + Send + 'static) {
        let log = self.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(source).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                log.push(&line);
            }
        });
    }

    /// The first line that holds `text`, as soon as there is one.
    ///
    /// # Errors
    /// After a minute, or as soon as `child` has ended.
    pub(crate) async fn wait_for(&self, text: &str, child: &mut Child) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.text().lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = child.try_wait()? {
                // Let the readers take what is still in the pipe.
                tokio::time::sleep(Duration::from_millis(50)).await;
                bail!(
                    "it ended with {status} before it was ready:\n{}",
                    self.tail(40)
                );
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!("it did not become ready:\n{}", self.tail(40));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Starts a process that ends when the value is dropped.
pub(crate) fn spawn(command: &mut Command) -> Result<(Child, Log)> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let log = Log::default();
    log.follow(child.stdout.take().context("no stdout")?);
    log.follow(child.stderr.take().context("no stderr")?);
    Ok((child, log))
}
