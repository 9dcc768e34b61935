//! `--print-inventory`: what this node would register with. It looks and starts nothing.

use std::path::{Path, PathBuf};

use muster_config::Config;
use muster_proto::agent::v1::Inventory;

use super::{Host, Roots, report};
use crate::jobs::edge::chain;
use crate::start::{StartError, node_of};

/// `muster agent --print-inventory`: what this node would register with. The answer is the exit
/// code.
#[must_use]
pub fn print_inventory(config: PathBuf, node: String, json: bool) -> i32 {
    match look(&config, &node) {
        Ok(inventory) if json => println!("{}", as_json(&node, &inventory)),
        Ok(inventory) => print!("{}", as_text(&node, &inventory)),
        Err(fault) => {
            eprintln!("muster agent: {}", chain(&fault));
            return 1;
        }
    }
    0
}

/// The inventory without a tree or a scope being made for it: what cannot be enforced is what
/// follows from who asks.
fn look(config: &Path, node: &str) -> Result<Inventory, StartError> {
    let config = Config::load(config)?;
    let node = node_of(&config, node)?;
    let uid = nix::unistd::geteuid().as_raw();
    let limits = if uid == 0 {
        Vec::new()
    } else {
        vec![format!("as uid {uid} the agent serves that user alone")]
    };
    Ok(report(&Host::look(&Roots::default()), node, &limits))
}

fn gres_words(inventory: &Inventory) -> Vec<String> {
    let word = |gres: &muster_proto::v1::GresCount| {
        let kind = gres.kind.clone().unwrap_or_default();
        match kind.of.as_str() {
            "" => format!("{}:{}", kind.name, gres.count),
            of => format!("{}:{of}:{}", kind.name, gres.count),
        }
    };
    inventory.gres.iter().map(word).collect()
}

fn as_json(node: &str, inventory: &Inventory) -> String {
    let value = serde_json::json!({
        "node": node,
        "cpus": inventory.cpus,
        "sockets": inventory.sockets,
        "cores_per_socket": inventory.cores_per_socket,
        "threads_per_core": inventory.threads_per_core,
        "numa_cpus": inventory.numa_cpus,
        "memory_mib": inventory.memory_mib,
        "gres": gres_words(inventory),
        "hostname": inventory.hostname,
        "arch": inventory.arch,
        "os": inventory.os,
        "boot_id": inventory.boot_id,
        "booted_at": inventory.booted_at,
        "unenforced": inventory.unenforced,
    });
    format!("{value:#}")
}

fn as_text(node: &str, inventory: &Inventory) -> String {
    let shape = format!(
        "{} ({} sockets x {} cores x {} threads)",
        inventory.cpus, inventory.sockets, inventory.cores_per_socket, inventory.threads_per_core
    );
    let mut lines = vec![
        ("node", node.to_owned()),
        ("cpus", shape),
        ("numa", inventory.numa_cpus.join(" | ")),
        ("memory", format!("{} MiB", inventory.memory_mib)),
        ("gres", gres_words(inventory).join(",")),
        ("host", format!("{} ({}, {})", inventory.hostname, inventory.os, inventory.arch)),
        ("boot", inventory.boot_id.clone()),
    ];
    lines.extend(inventory.unenforced.iter().map(|text| ("unenforced", text.clone())));
    let shown = lines.into_iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{name:<12}{value}\n")).collect()
}
