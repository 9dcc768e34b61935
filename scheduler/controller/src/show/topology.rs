//! The network as configured, for the wire.

use std::collections::BTreeSet;

use muster_config::Config;
use muster_proto::v1::{ShowTopologyReply, show_topology_reply as wire};

/// All of it, with the nodes that it leaves out.
#[must_use]
pub fn reply(config: &Config) -> ShowTopologyReply {
    let topology = &config.topology;
    let own = |list: &[Box<str>]| list.iter().map(ToString::to_string).collect();
    let in_switches = topology.switches.iter().flat_map(|s| &s.nodes);
    let named: BTreeSet<&str> =
        in_switches.chain(topology.blocks.iter().flat_map(|b| &b.nodes)).map(|n| &**n).collect();
    let others = config.nodes.iter().filter(|n| !named.contains(&*n.name));
    ShowTopologyReply {
        switches: topology
            .switches
            .iter()
            .map(|switch| wire::Switch {
                name: switch.name.to_string(),
                nodes: own(&switch.nodes),
                switches: own(&switch.switches),
                rails: switch.rails,
            })
            .collect(),
        blocks: topology
            .blocks
            .iter()
            .map(|block| wire::Block { name: block.name.to_string(), nodes: own(&block.nodes) })
            .collect(),
        others: others.map(|n| n.name.to_string()).collect(),
    }
}
