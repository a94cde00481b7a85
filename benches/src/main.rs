//! The parts that `cargo xtask bench` runs, each as a process of its own so
//! that the kernel's CPU accounting tells them apart.
#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the real clock; nothing here is part of the product"
)]

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

mod floor;
mod languages;
mod load;
mod proxy;
mod run;
mod serve;
mod stages;
mod swaps;
mod upstream;
mod vault;

#[derive(Parser)]
#[command(about = "Parts of Countersign's benchmark; `cargo xtask bench` puts them together.")]
struct Arguments {
    #[command(subcommand)]
    part: Part,
}

#[derive(Subcommand)]
enum Part {
    /// An MCP server that answers at once, for tools/call of 2026-07-28.
    Upstream {
        /// Where to listen; port 0 picks one. The address is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// A reverse proxy that only adds a header: the floor.
    Proxy {
        /// Where to listen; port 0 picks one. The address is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where to forward to.
        #[arg(long)]
        to: SocketAddr,
    },
    /// A proxy that parses both envelopes, swaps a token and evaluates one
    /// fresh verdict: the floor for what Countersign does.
    Floor {
        /// Where to listen; port 0 picks one. The address is printed.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where to forward to.
        #[arg(long)]
        to: SocketAddr,
        /// Folder with `generic-*.wasm`.
        #[arg(long)]
        catalog: std::path::PathBuf,
    },
    /// Starts everything, measures, and prints the table.
    Run(run::Run),
    /// Prints what one verdict costs in each language that presets are written
    /// in.
    Languages(languages::Languages),
    /// Prints what the vault costs on sled and on PostgreSQL.
    Vault(vault::Bench),
    /// Sends tools/call requests and prints what it measured as JSON.
    Load(load::Load),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.part {
            Part::Upstream { listen } => upstream::run(listen).await,
            Part::Proxy { listen, to } => proxy::run(listen, to).await,
            Part::Floor {
                listen,
                to,
                catalog,
            } => floor::run(listen, to, &catalog).await,
            Part::Languages(languages) => languages.run(),
            Part::Vault(bench) => bench.run().await,
            Part::Load(load) => load.run().await,
            Part::Run(run) => run.run().await,
        }
    })
}
