//! The switches and blocks between the nodes: `scontrol show topology` and `muster topology`.

use std::fmt::Write as _;

use muster_model::{BlockConfig, Hostlist, SwitchConfig, TopologyConfig, TopologyGraph};
use muster_proto::v1;
use tonic::Response;

use crate::connect::{Api, CallError, Client};
use crate::exit;

const PROGRAM: &str = "muster topology";

const USAGE: &str = "\
usage: muster topology [--dot | --hops NODES]

  --dot         as a graph for Graphviz
  --hops NODES  how many switches lie between each two of these nodes
";

/// More columns than this are no table.
const MAX_HOPS: usize = 64;

/// The network, and the same as a graph.
#[derive(Debug)]
pub(super) struct Network {
    config: TopologyConfig,
    graph: TopologyGraph,
    others: Vec<String>,
}

/// Asks the controller.
pub(super) fn load(client: &mut Client) -> Result<Network, CallError> {
    let reply = client.call(async |mut api: Api| {
        api.query.show_topology(v1::ShowTopologyRequest {}).await.map(Response::into_inner)
    })?;
    Ok(Network::of(reply))
}

impl Network {
    fn of(reply: v1::ShowTopologyReply) -> Self {
        let own = |list: Vec<String>| list.into_iter().map(Into::into).collect();
        let switch = |s: v1::show_topology_reply::Switch| SwitchConfig {
            name: s.name.into(),
            nodes: own(s.nodes),
            switches: own(s.switches),
            rails: s.rails,
        };
        let block = |b: v1::show_topology_reply::Block| BlockConfig {
            name: b.name.into(),
            nodes: own(b.nodes),
        };
        let config = TopologyConfig {
            switches: reply.switches.into_iter().map(switch).collect(),
            blocks: reply.blocks.into_iter().map(block).collect(),
        };
        let hung = config.switches.iter().flat_map(|s| &s.nodes);
        let mut nodes: Vec<&str> = hung.map(|n| &**n).collect();
        if config.switches.is_empty() {
            nodes.extend(config.blocks.iter().flat_map(|b| &b.nodes).map(|n| &**n));
        }
        nodes.extend(reply.others.iter().map(String::as_str));
        // The controller refuses to start with one that is not sound.
        let graph = config.graph(nodes).unwrap_or_default();
        Network { config, graph, others: reply.others }
    }

    fn below(&self, switch: usize) -> String {
        hostlist(&self.config.nodes_below(&self.graph, switch))
    }
}

fn hostlist(names: &[Box<str>]) -> String {
    Hostlist::from_iter(names.iter().map(|name| &**name)).sorted().to_string()
}

/// One line a switch and block, in Slurm's layout; with a name: that switch or block, or those that
/// a node hangs on.
pub(super) fn scontrol(network: &Network, wanted: Option<&str>) -> Result<String, String> {
    let config = &network.config;
    if config.is_empty() {
        return Ok("No topology information available\n".to_owned());
    }
    let path = wanted.map(|name| network.graph.path(config, name)).unwrap_or_default();
    let mut out = String::new();
    for (at, switch) in config.switches.iter().enumerate() {
        if wanted.is_some_and(|name| *name != *switch.name && !path.contains(&switch.name)) {
            continue;
        }
        let level = network.graph.height(at);
        let _ = write!(out, "SwitchName={} Level={level} LinkSpeed=1", switch.name);
        let _ = write!(out, " Nodes={}", network.below(at));
        if !switch.switches.is_empty() {
            let _ = write!(out, " Switches={}", hostlist(&switch.switches));
        }
        out.push('\n');
    }
    for (at, block) in config.blocks.iter().enumerate() {
        let has = |name: &str| block.nodes.iter().any(|node| **node == *name);
        if wanted.is_some_and(|name| *name != *block.name && !has(name)) {
            continue;
        }
        let (nodes, size) = (hostlist(&block.nodes), block.nodes.len());
        let _ = writeln!(
            out,
            "BlockName={} BlockIndex={at} Nodes={nodes} BlockSize={size}",
            block.name
        );
    }
    match wanted.filter(|_| out.is_empty()) {
        Some(name) => {
            Err(format!("Topology information contains no switch or node named {name}\n"))
        }
        None => Ok(out),
    }
}

/// The command.
#[must_use]
pub fn topology(args: &[String]) -> i32 {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let show: &dyn Fn(&Network) -> Result<String, String> = match words.as_slice() {
        [] => &|network| Ok(tree(network)),
        ["--dot"] => &|network| Ok(network.config.dot(&network.graph)),
        ["--hops", nodes] => &|network| hops(network, nodes),
        ["--help" | "-h"] => {
            exit::print(USAGE);
            return exit::OK;
        }
        _ => {
            eprint!("{USAGE}");
            return exit::FAILED;
        }
    };
    let mut client = match super::open(PROGRAM, "slurm_load_topo") {
        Ok(client) => client,
        Err(code) => return code,
    };
    let network = match load(&mut client) {
        Ok(network) => network,
        Err(error) => return super::failed(PROGRAM, "slurm_load_topo", &error),
    };
    match show(&network) {
        Ok(text) => {
            exit::print(&text);
            exit::OK
        }
        Err(fault) => {
            exit::error(PROGRAM, &fault);
            exit::FAILED
        }
    }
}

/// The tree with one line a switch, leaves with their nodes; then the blocks.
fn tree(network: &Network) -> String {
    let config = &network.config;
    if config.is_empty() {
        return "no topology is configured: every node is as near as any other\n".to_owned();
    }
    let mut out = String::new();
    let mut steps: Vec<(usize, usize)> =
        network.graph.roots().into_iter().rev().map(|at| (at, 0)).collect();
    while let Some((at, depth)) = steps.pop() {
        let switch = &config.switches[at];
        let _ = write!(out, "{:indent$}{}", "", switch.name, indent = depth * 2);
        if switch.rails > 1 {
            let _ = write!(out, " ({} rails)", switch.rails);
        }
        if !switch.nodes.is_empty() {
            let _ = write!(out, "  {}", hostlist(&switch.nodes));
        }
        out.push('\n');
        steps.extend(network.graph.below(at).into_iter().rev().map(|below| (below, depth + 1)));
    }
    for block in &config.blocks {
        let _ = writeln!(
            out,
            "block {}  {} ({} nodes)",
            block.name,
            hostlist(&block.nodes),
            block.nodes.len()
        );
    }
    if !network.others.is_empty() {
        let others: Hostlist = network.others.iter().map(String::as_str).collect();
        let _ = writeln!(out, "in no block  {}", others.sorted());
    }
    out
}

/// A table of how many switches lie between nodes; `-` where none joins them.
fn hops(network: &Network, nodes: &str) -> Result<String, String> {
    let nodes = Hostlist::parse(nodes).map_err(|fault| fault.to_string())?.0;
    if nodes.len() > MAX_HOPS {
        return Err(format!("--hops shows {MAX_HOPS} nodes at most, not {}", nodes.len()));
    }
    if let Some(unknown) = nodes.iter().find(|n| network.graph.distance(n, n).is_none()) {
        return Err(format!("node {unknown:?} is not in the topology"));
    }
    let width = nodes.iter().map(String::len).max().unwrap_or(0);
    let mut out = format!("{:width$}", "");
    for node in &nodes {
        let _ = write!(out, " {node:>width$}");
    }
    out.push('\n');
    for from in &nodes {
        let _ = write!(out, "{from:width$}");
        for to in &nodes {
            let hops = network.graph.distance(from, to);
            let hops = hops.map_or_else(|| "-".to_owned(), |n| n.to_string());
            let _ = write!(out, " {hops:>width$}");
        }
        out.push('\n');
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::show_topology_reply::{Block, Switch};

    fn network() -> Network {
        let names = |list: &str| Hostlist::parse(list).unwrap().0;
        let switch = |name: &str, nodes: &str, switches: &str, rails: u32| Switch {
            name: name.into(),
            nodes: names(nodes),
            switches: names(switches),
            rails,
        };
        Network::of(v1::ShowTopologyReply {
            switches: vec![
                switch("leaf1", "n[1-2]", "", 8),
                switch("leaf2", "n[3-4]", "", 1),
                switch("spine", "", "leaf[1-2]", 1),
                switch("far", "m1", "", 1),
            ],
            blocks: vec![Block { name: "b1".into(), nodes: names("n[1-2]") }],
            others: Vec::new(),
        })
    }

    #[track_caller]
    fn check(wanted: Option<&str>, lines: &[&str]) {
        assert_eq!(scontrol(&network(), wanted).unwrap().lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn switches_are_shown_with_all_nodes_below_them() {
        let leaf1 = "SwitchName=leaf1 Level=0 LinkSpeed=1 Nodes=n[1-2]";
        let leaf2 = "SwitchName=leaf2 Level=0 LinkSpeed=1 Nodes=n[3-4]";
        let spine = "SwitchName=spine Level=1 LinkSpeed=1 Nodes=n[1-4] Switches=leaf[1-2]";
        let far = "SwitchName=far Level=0 LinkSpeed=1 Nodes=m1";
        let block = "BlockName=b1 BlockIndex=0 Nodes=n[1-2] BlockSize=2";
        check(None, &[leaf1, leaf2, spine, far, block]);
        check(Some("spine"), &[spine]);
        check(Some("n3"), &[leaf2, spine]);
        check(Some("n1"), &[leaf1, spine, block]);
        let fault = scontrol(&network(), Some("x")).unwrap_err();
        assert_eq!(fault, "Topology information contains no switch or node named x\n");
    }

    #[test]
    fn the_tree_is_indented_and_hops_are_counted() {
        let expected = "spine\n  leaf1 (8 rails)  n[1-2]\n  leaf2  n[3-4]\nfar  m1\nblock b1  n[1-2] (2 nodes)\n";
        assert_eq!(tree(&network()), expected);
        let expected = "   n1 n3 m1\nn1  0  3  -\nn3  3  0  -\nm1  -  -  0\n";
        assert_eq!(hops(&network(), "n1,n3,m1").unwrap(), expected);
        assert!(hops(&network(), "x").unwrap_err().contains("\"x\""));
        assert!(hops(&network(), "n[1-100]").unwrap_err().contains("64 nodes at most"));
    }

    #[test]
    fn a_cluster_without_a_topology_says_so() {
        let none = Network::of(v1::ShowTopologyReply::default());
        assert_eq!(scontrol(&none, None).unwrap(), "No topology information available\n");
        assert!(tree(&none).contains("no topology"));
    }
}
