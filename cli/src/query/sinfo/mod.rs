//! `sinfo`: nodes and partitions.
//!
//! Nodes of a partition whose shown values are equal share a line. Sizes (CPUs, memory, ...) do
//! not keep nodes apart unless `-e` asks for it: the least is shown, with `+` where some have more.
//!
//! - `reservations`: `-T`
//! - `options`: what was asked, from arguments and `SINFO_*`
//! - `fields`: the columns

mod fields;
mod options;
mod reservations;

use std::cmp::Ordering;
use std::collections::BTreeMap;

use muster_model::hostlist::Hostlist;
use muster_proto::v1::{Node, Partition};

use self::fields::{FIELDS, Group, Row, View};
use self::options::{Ask, Options};
use super::layout::Layout;
use super::source::Source;
use super::surroundings::Surroundings;
use super::{Output, json, states, times, tres};

const PROGRAM: &str = "sinfo";
const LEAD: &str = "slurm_load_partitions: ";

/// The whole command.
pub(super) fn command(args: &[String], source: &mut dyn Source, here: &Surroundings) -> Output {
    let options = match options::read(args, here) {
        Ok(Ask::Text(text)) => return Output::text(text),
        Ok(Ask::Nodes(options)) => options,
        Err(output) => return output,
    };
    let mut output = show(*options, source, here).unwrap_or_else(|output| output);
    if output.code == 0 {
        output.again = options::every(args);
    }
    output
}

fn show(
    mut options: Options,
    source: &mut dyn Source,
    here: &Surroundings,
) -> Result<Output, Output> {
    let failed = |fault| Output::failed(PROGRAM, LEAD, &fault);
    if options.reservations {
        let all = source.reservations().map_err(failed)?;
        return Ok(Output::text(reservations::table(&all, options.no_header, here)));
    }
    let partitions = source.partitions().map_err(failed)?;
    let nodes = source.nodes().map_err(failed)?;
    let cluster =
        if options.needs_cluster() { source.cluster().map_err(failed)? } else { String::new() };
    if let Some(other) = options.foreign_cluster(&cluster) {
        return Err(Output::error(PROGRAM, &super::unknown_cluster(&other)));
    }
    let pairs = pairs(&options, &partitions, &nodes);
    if options.json {
        let groups = json_groups(&pairs);
        let about = json::About { command: PROGRAM, cluster: &cluster, here };
        return Ok(Output::text(json::sinfo(&groups, &about)));
    }
    if options.widens {
        widen(&mut options.layout, &partitions, &nodes);
    }
    let view = View { here, cluster: &cluster };
    let mut rows = rows(&options, &pairs, &view);
    sort(&mut rows, &options.sort, &partitions, &view);
    let mut out = String::new();
    if options.dated && !options.no_header {
        out.push_str(&times::headline(here.now, &here.zone));
        out.push('\n');
    }
    if !options.no_header {
        out.push_str(&options.layout.line(|field| FIELDS[field].header.to_owned()));
        out.push('\n');
    }
    for row in &rows {
        out.push_str(&options.layout.line(|field| (FIELDS[field].value)(row, &view)));
        out.push('\n');
    }
    Ok(Output::text(out))
}

/// A partition and one of its nodes, or none where it has no nodes.
type Pair<'a> = (&'a Partition, Option<&'a Node>);

fn pairs<'a>(options: &Options, partitions: &'a [Partition], nodes: &'a [Node]) -> Vec<Pair<'a>> {
    let place: BTreeMap<&str, usize> =
        nodes.iter().enumerate().map(|(at, n)| (n.name.as_str(), at)).collect();
    let mut pairs = Vec::new();
    for partition in partitions {
        if !options.partitions.as_ref().is_none_or(|wanted| wanted.contains(&partition.name)) {
            continue;
        }
        let names = Hostlist::parse(&partition.nodes).unwrap_or_default().0;
        let mut mine: Vec<usize> =
            names.iter().filter_map(|n| place.get(n.as_str()).copied()).collect();
        mine.sort_unstable();
        mine.dedup();
        let before = pairs.len();
        let wanted = mine.iter().map(|at| &nodes[*at]).filter(|node| options.keeps(node));
        pairs.extend(wanted.map(|node| (partition, Some(node))));
        if pairs.len() == before && !options.narrows_nodes() {
            pairs.push((partition, None));
        }
    }
    pairs
}

fn rows<'a>(options: &Options, pairs: &[Pair<'a>], view: &View) -> Vec<Row<'a>> {
    let parts: Vec<usize> = options
        .layout
        .columns
        .iter()
        .map(|c| c.field)
        .filter(|field| match FIELDS[*field].group {
            Group::Key => true,
            Group::Size => options.exact,
            Group::Sum => false,
        })
        .collect();
    let mut rows: Vec<Row> = Vec::new();
    let mut at: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for (partition, node) in pairs {
        let single = Row { partition, nodes: node.iter().copied().collect() };
        if options.by_node {
            rows.push(single);
            continue;
        }
        let key: Vec<String> = parts.iter().map(|f| (FIELDS[*f].value)(&single, view)).collect();
        match at.get(&key) {
            Some(row) => rows[*row].nodes.extend(single.nodes),
            None => {
                at.insert(key, rows.len());
                rows.push(single);
            }
        }
    }
    for row in &mut rows {
        unique(&mut row.nodes);
    }
    rows
}

/// A node of several partitions counts once in a line that shows no partition.
fn unique(nodes: &mut Vec<&Node>) {
    let mut seen = std::collections::BTreeSet::new();
    nodes.retain(|node| seen.insert(node.name.as_str()));
}

fn json_groups<'a>(pairs: &[Pair<'a>]) -> Vec<json::Group<'a>> {
    let mut groups: Vec<json::Group> = Vec::new();
    let mut at = BTreeMap::new();
    for (partition, node) in pairs {
        let key = node.map(|n| {
            (
                states::node_flags(n),
                (n.cpus, n.memory_mib, n.sockets, n.cores_per_socket, n.threads_per_core, n.weight),
                tres::declared(&n.gres),
                tres::used(&n.gres, &n.gres_used),
                n.features.clone(),
                n.reason.clone(),
            )
        });
        let key = (partition.name.as_str(), key);
        match at.get(&key) {
            Some(group) => {
                let group: &mut json::Group = &mut groups[*group];
                group.nodes.extend(node);
            }
            None => {
                at.insert(key, groups.len());
                groups.push(json::Group { partition, nodes: node.iter().copied().collect() });
            }
        }
    }
    groups
}

/// The default layouts make room for the longest names.
fn widen(layout: &mut Layout, partitions: &[Partition], nodes: &[Node]) {
    let partition = partitions.iter().map(|p| p.name.len() + usize::from(p.default)).max();
    let node = nodes.iter().map(|n| n.name.len()).max();
    for column in &mut layout.columns {
        let longest = match FIELDS[column.field].name {
            "Partition" => partition,
            "NodeList" => node,
            _ => None,
        };
        if column.width.chars > 0 {
            column.width.chars = column.width.chars.max(longest.unwrap_or(0));
        }
    }
}

fn sort(rows: &mut [Row], order: &[(char, bool)], partitions: &[Partition], view: &View) {
    let place: BTreeMap<&str, usize> =
        partitions.iter().enumerate().map(|(at, p)| (p.name.as_str(), at)).collect();
    rows.sort_by(|a, b| {
        for (code, down) in order {
            let by = match code {
                '#' => place[a.partition.name.as_str()].cmp(&place[b.partition.name.as_str()]),
                code => fields::compare(*code, a, b, view),
            };
            let by = if *down { by.reverse() } else { by };
            if by != Ordering::Equal {
                return by;
            }
        }
        Ordering::Equal
    });
}
