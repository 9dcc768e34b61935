//! `[[switch]]` and `[[block]]`: the network between the nodes.

use muster_model::{BlockConfig, Hostlist, NodeConfig, SwitchConfig, TopologyConfig};

use crate::raw;
use crate::resolved::word;

/// More network cards than this are in no node.
const MAX_RAILS: u32 = 64;

pub(crate) fn resolve(
    switches: &[raw::Switch],
    blocks: &[raw::Block],
    nodes: &[NodeConfig],
) -> Result<TopologyConfig, String> {
    let config = TopologyConfig {
        switches: switches.iter().map(switch).collect::<Result<_, _>>()?,
        blocks: blocks.iter().map(block).collect::<Result<_, _>>()?,
    };
    config.graph(nodes.iter().map(|n| &*n.name)).map_err(|fault| fault.to_string())?;
    Ok(config)
}

fn switch(raw: &raw::Switch) -> Result<SwitchConfig, String> {
    word("[[switch]] name", &raw.name)?;
    let what = format!("switch {:?}", raw.name);
    let rails = raw.rails.unwrap_or(1);
    if rails == 0 || rails > MAX_RAILS {
        return Err(format!("{what}: rails = {rails} must be 1 to {MAX_RAILS}"));
    }
    Ok(SwitchConfig {
        name: raw.name.as_str().into(),
        nodes: names(&what, raw.nodes.as_deref())?,
        switches: names(&what, raw.switches.as_deref())?,
        rails,
    })
}

fn block(raw: &raw::Block) -> Result<BlockConfig, String> {
    word("[[block]] name", &raw.name)?;
    let what = format!("block {:?}", raw.name);
    let nodes = names(&what, Some(&raw.nodes))?;
    if nodes.is_empty() {
        return Err(format!("{what} has no nodes"));
    }
    Ok(BlockConfig { name: raw.name.as_str().into(), nodes })
}

fn names(what: &str, list: Option<&str>) -> Result<Vec<Box<str>>, String> {
    let list = Hostlist::parse(list.unwrap_or_default()).map_err(|f| format!("{what}: {f}"))?;
    Ok(list.0.into_iter().map(Into::into).collect())
}
