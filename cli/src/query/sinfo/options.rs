//! What was asked of `sinfo`: arguments before `SINFO_*` before defaults.

use muster_model::hostlist::Hostlist;
use muster_proto::v1::Node;

use super::super::layout::{self, Layout};
use super::super::surroundings::Surroundings;
use super::super::{Output, VERSION, pick, states};
use super::PROGRAM;
use super::fields::FIELDS;
use crate::getopt::{self, Opt, Parsed, Spec, Takes, alias, both, long};

const SPEC: Spec = Spec {
    program: PROGRAM,
    stop_at_operand: false,
    options: &[
        both("all", 'a', Takes::Nothing),
        both("clusters", 'M', Takes::Value),
        alias("clusters", "cluster", Takes::Value),
        both("dead", 'd', Takes::Nothing),
        both("exact", 'e', Takes::Nothing),
        long("federation", Takes::Nothing),
        both("future", 'F', Takes::Nothing),
        both("format", 'o', Takes::Value),
        both("Format", 'O', Takes::Value),
        long("help", Takes::Nothing),
        long("hide", Takes::Nothing),
        both("iterate", 'i', Takes::Value),
        long("json", Takes::MaybeValue),
        both("list-reasons", 'R', Takes::Nothing),
        long("local", Takes::Nothing),
        both("long", 'l', Takes::Nothing),
        long("noconvert", Takes::Nothing),
        both("Node", 'N', Takes::Nothing),
        both("nodes", 'n', Takes::Value),
        both("noheader", 'h', Takes::Nothing),
        both("partition", 'p', Takes::Value),
        both("responding", 'r', Takes::Nothing),
        both("sort", 'S', Takes::Value),
        both("states", 't', Takes::Value),
        alias("states", "state", Takes::Value),
        both("summarize", 's', Takes::Nothing),
        both("reservation", 'T', Takes::Nothing),
        long("usage", Takes::Nothing),
        both("verbose", 'v', Takes::Nothing),
        both("version", 'V', Takes::Nothing),
        Opt { id: "help", long: "", short: Some('?'), takes: Takes::Nothing },
    ],
};

const USAGE: &str = "Usage: sinfo [-adehilnNopOrRsStTvM] [--json]\n";

const HELP: &str = "\
Usage: sinfo [OPTIONS]
  -a, --all                   every partition (always so)
  -M, --clusters=NAME         this cluster, or all
  -d, --dead                  nodes that do not respond
  -e, --exact                 nodes share a line only if their sizes are equal
  -o, --format=FORMAT         columns by letter: %[[.]width]letter
  -O, --Format=FIELD,..       columns by name: Field[:[.]width|:suffix]
  -i, --iterate=SECONDS       print again and again
      --json                  as a JSON document
  -R, --list-reasons          why nodes are down or drained
  -l, --long                  the long layout
  -N, --Node                  one line per node and partition
  -n, --nodes=HOSTLIST        these nodes
  -h, --noheader              no header line
      --noconvert             accepted: sizes are not converted
  -p, --partition=NAME,..     these partitions
  -r, --responding            nodes that respond
  -S, --sort=LETTERS          order by these letters, each with + or -
  -t, --states=STATE,..       nodes in these states
  -s, --summarize             one line per partition
  -T, --reservation           reservations instead of nodes
  -V, --version               the version
";

const DEFAULT: &str = "partition:9 ,available:.5 ,time:.10 ,nodes:.6 ,statecompact:.6 ,nodelist:0";
const LONG: &str = "partition:9 ,available:.5 ,time:.10 ,size:.10 ,root:.4 ,oversubscribe:.8 ,\
                    groups:.10 ,nodes:.6 ,statelong:.11 ,reservation:.11 ,nodelist:0";
const BY_NODE: &str = "nodelist:9 ,nodes:.6 ,partition:.9 ,statecompact:6";
const BY_NODE_LONG: &str = "nodelist:9 ,nodes:.6 ,partition:.9 ,statelong:.11 ,cpus:.6 ,\
                            socketcorethread:.8 ,memory:.6 ,disk:.8 ,weight:.6 ,features:.8 ,\
                            reason:20";
const SUMMARY: &str = "partition:9 ,available:.5 ,time:.10 ,nodeaiot:.16 ,nodelist:0";
const REASONS: &str = "reason:20 ,user:9 ,timestamp:19 ,nodelist:0";
const REASONS_LONG: &str = "reason:20 ,user:12 ,timestamp:19 ,statecompact:6 ,nodelist:0";

/// What is to be shown.
pub(super) struct Options {
    pub(super) layout: Layout,
    /// The layout is a default one, whose names make room for themselves.
    pub(super) widens: bool,
    pub(super) by_node: bool,
    pub(super) exact: bool,
    pub(super) json: bool,
    pub(super) no_header: bool,
    pub(super) dated: bool,
    pub(super) partitions: Option<Vec<String>>,
    /// Letters; true: descending. `#`: partitions in the configured order.
    pub(super) sort: Vec<(char, bool)>,
    nodes: Option<Vec<String>>,
    /// Words that [`states::node_is`] knows.
    states: Option<Vec<String>>,
    clusters: Option<Vec<String>>,
    dead: bool,
    responding: bool,
    reasons: bool,
    pub(super) reservations: bool,
}

impl Options {
    /// Whether a node passes every filter.
    pub(super) fn keeps(&self, node: &Node) -> bool {
        let in_state =
            |words: &Vec<String>| words.iter().any(|w| states::node_is(node, w) == Some(true));
        let troubled = node.drain || states::node_is(node, "down") == Some(true);
        self.nodes.as_ref().is_none_or(|names| names.contains(&node.name))
            && self.states.as_ref().is_none_or(in_state)
            && (!self.dead || node.not_responding)
            && (!self.responding || !node.not_responding)
            && (!self.reasons || troubled)
    }

    /// Whether a filter leaves nodes out, so that partitions without any are not shown.
    pub(super) fn narrows_nodes(&self) -> bool {
        let lists = self.nodes.is_some() || self.states.is_some();
        lists || self.dead || self.responding || self.reasons || self.by_node
    }

    /// Whether the cluster's name is shown or must be checked.
    pub(super) fn needs_cluster(&self) -> bool {
        let field = FIELDS.iter().position(|f| f.name == "Cluster");
        self.json || self.clusters.is_some() || field.is_some_and(|field| self.layout.shows(field))
    }

    /// A cluster that was asked for and is not this one.
    pub(super) fn foreign_cluster(&self, own: &str) -> Option<String> {
        let named = self.clusters.iter().flatten();
        named.into_iter().find(|n| *n != own && !n.eq_ignore_ascii_case("all")).cloned()
    }
}

/// Either what to show, or a text that answers by itself.
pub(super) enum Ask {
    Text(String),
    Nodes(Box<Options>),
}

/// Reads the command line.
///
/// # Errors
/// What to say when it cannot be read.
pub(super) fn read(args: &[String], here: &Surroundings) -> Result<Ask, Output> {
    let parsed = getopt::parse(&SPEC, args).map_err(|fault| Output::usage(&fault))?;
    for (id, text) in [("help", HELP), ("usage", USAGE)] {
        if parsed.has(id) {
            return Ok(Ask::Text(text.to_owned()));
        }
    }
    if parsed.has("version") {
        return Ok(Ask::Text(format!("{VERSION}\n")));
    }
    if let Some(word) = parsed.operands.first() {
        return Err(Output::error(PROGRAM, &format!("Unrecognized option: {word}")));
    }
    let nodes = match parsed.last("nodes") {
        Some(text) => {
            let list = Hostlist::parse(text);
            Some(list.map_err(|fault| Output::error(PROGRAM, &fault.to_string()))?.0)
        }
        None => None,
    };
    if let Some(text) = parsed.last("iterate")
        && every_text(text).is_none()
    {
        let text = format!("--iterate={text} must be a positive number");
        return Err(Output::error(PROGRAM, &text));
    }
    let (layout, widens) = columns(&parsed, here)?;
    let list = |id: &'static str, variable: &str| {
        parsed.last(id).or_else(|| here.variable(variable)).map(pick::words)
    };
    let sort = parsed.last("sort").or_else(|| here.variable("SINFO_SORT"));
    let default_sort = if parsed.has("Node") { "N" } else { "#P,-t" };
    Ok(Ask::Nodes(Box::new(Options {
        layout,
        widens,
        by_node: parsed.has("Node"),
        exact: parsed.has("exact"),
        json: parsed.has("json"),
        no_header: parsed.has("noheader"),
        dated: parsed.has("long") || parsed.has("iterate"),
        partitions: list("partition", "SINFO_PARTITION"),
        sort: sort_letters(sort.unwrap_or(default_sort)),
        nodes,
        states: state_words(&parsed)?,
        clusters: list("clusters", "SLURM_CLUSTERS"),
        dead: parsed.has("dead"),
        responding: parsed.has("responding"),
        reasons: parsed.has("list-reasons"),
        reservations: parsed.has("reservation"),
    })))
}

/// The pause of `-i`, in seconds.
pub(super) fn every(args: &[String]) -> Option<u64> {
    getopt::parse(&SPEC, args).ok()?.last("iterate").and_then(every_text)
}

fn every_text(text: &str) -> Option<u64> {
    text.parse().ok().filter(|s| *s > 0)
}

fn state_words(parsed: &Parsed) -> Result<Option<Vec<String>>, Output> {
    let Some(text) = parsed.last("states") else { return Ok(None) };
    let words: Vec<String> =
        pick::words(text).iter().map(|w| w.trim_end_matches(['*', '~', '#']).to_owned()).collect();
    match words.iter().find(|w| states::node_is(&Node::default(), w).is_none()) {
        None => Ok(Some(words)),
        Some(word) => {
            let mut output = Output::error(PROGRAM, &format!("Bad state string: \"{word}\""));
            let valid = states::NODE_STATES.join(",");
            output.err.push_str(&format!("{PROGRAM}: error: Valid node states include: {valid}\n"));
            Err(output)
        }
    }
}

fn columns(parsed: &Parsed, here: &Surroundings) -> Result<(Layout, bool), Output> {
    let given = parsed.options.iter().rev().find(|o| matches!(o.id, "format" | "Format"));
    let by_name = |name: &str| FIELDS.iter().position(|f| f.name.eq_ignore_ascii_case(name));
    let by_letter = |c: char| FIELDS.iter().position(|f| f.code == c && c != ' ');
    let all: Vec<usize> = (0..FIELDS.len()).filter(|at| FIELDS[*at].code != ' ').collect();
    let has = |id| parsed.has(id);
    let default = match (has("list-reasons"), has("summarize"), has("Node"), has("long")) {
        (true, _, _, false) => REASONS,
        (true, _, _, true) => REASONS_LONG,
        (_, true, _, _) => SUMMARY,
        (_, _, true, false) => BY_NODE,
        (_, _, true, true) => BY_NODE_LONG,
        (_, _, false, true) => LONG,
        _ => "",
    };
    let (layout, widens) = match given.and_then(|o| Some((o.id, o.value.as_deref()?))) {
        Some(("Format", text)) => (layout::names(text, by_name), false),
        Some((_, text)) => (layout::letters(text, &all, by_letter), false),
        None if !default.is_empty() => (layout::names(default, by_name), true),
        None => match here.variable("SINFO_FORMAT") {
            Some(text) => (layout::letters(text, &all, by_letter), false),
            None => (layout::names(DEFAULT, by_name), true),
        },
    };
    if layout.unknown.is_empty() {
        return Ok((layout, widens));
    }
    let text = format!("Invalid node format specification: {}", layout.unknown.join(","));
    Err(Output::error(PROGRAM, &text))
}

/// `#P,-t`: letters with signs.
fn sort_letters(text: &str) -> Vec<(char, bool)> {
    let mut order = Vec::new();
    let (mut down, mut configured) = (false, false);
    for c in text.chars() {
        match c {
            '-' => down = true,
            '#' => configured = true,
            '+' | ',' | ' ' | '%' => {}
            letter => {
                order.push((if configured && letter == 'P' { '#' } else { letter }, down));
                (down, configured) = (false, false);
            }
        }
    }
    order
}
