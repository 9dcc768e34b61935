//! How a pass chooses, in the words of the file. What the words do is the planner's affair.

/// Which waiting job comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    #[default]
    Balanced,
    Priority,
    Fcfs,
    Sjf,
    F1,
    Wfp3,
}

/// Whether a job may start before one that is ahead of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backfill {
    #[default]
    On,
    Off,
    /// The shortest limit first.
    Shortest,
}

/// Which nodes fill up first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Packing {
    #[default]
    BestFit,
    FirstFit,
    Spread,
    Fgd,
    LeastFragments,
}

/// Jobs of a partition that have a promised start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shadows {
    First(u32),
    All,
}

impl Default for Shadows {
    fn default() -> Self {
        Shadows::First(1)
    }
}

/// How the tasks of a step find each other, where nobody says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MpiDefault {
    #[default]
    None,
    Pmi2,
    Pmix,
}

const ORDERS: &[(&str, Order)] = &[
    ("balanced", Order::Balanced),
    ("priority", Order::Priority),
    ("fcfs", Order::Fcfs),
    ("sjf", Order::Sjf),
    ("f1", Order::F1),
    ("wfp3", Order::Wfp3),
];
const BACKFILLS: &[(&str, Backfill)] =
    &[("on", Backfill::On), ("off", Backfill::Off), ("shortest", Backfill::Shortest)];
const PACKINGS: &[(&str, Packing)] = &[
    ("best-fit", Packing::BestFit),
    ("first-fit", Packing::FirstFit),
    ("spread", Packing::Spread),
    ("fgd", Packing::Fgd),
    ("least-fragments", Packing::LeastFragments),
];

const MPI: &[(&str, MpiDefault)] =
    &[("none", MpiDefault::None), ("pmi2", MpiDefault::Pmi2), ("pmix", MpiDefault::Pmix)];

pub(crate) fn mpi_default(word: Option<&str>) -> Result<MpiDefault, String> {
    choice("mpi_default", word, MPI)
}

pub(crate) fn order(word: Option<&str>) -> Result<Order, String> {
    choice("order", word, ORDERS)
}

pub(crate) fn backfill(word: Option<&str>) -> Result<Backfill, String> {
    choice("backfill", word, BACKFILLS)
}

pub(crate) fn packing(word: Option<&str>) -> Result<Packing, String> {
    choice("packing", word, PACKINGS)
}

pub(crate) fn shadows(count: Option<&crate::raw::Count>) -> Result<Shadows, String> {
    match count {
        None => Ok(Shadows::default()),
        Some(crate::raw::Count::Number(count)) => Ok(Shadows::First(*count)),
        Some(crate::raw::Count::Word(word)) if word == "all" => Ok(Shadows::All),
        Some(crate::raw::Count::Word(word)) => {
            Err(format!("scheduler.shadows = {word:?}: use a number or \"all\""))
        }
    }
}

/// The choice of a word; without a word the usual one.
fn choice<T: Copy + Default>(
    key: &str,
    word: Option<&str>,
    all: &[(&'static str, T)],
) -> Result<T, String> {
    let Some(word) = word else { return Ok(T::default()) };
    if let Some((_, choice)) = all.iter().find(|(known, _)| *known == word) {
        return Ok(*choice);
    }
    let known = || all.iter().map(|(known, _)| *known);
    Err(match crate::raw::nearest(word, known()) {
        Some(near) => format!("scheduler.{key} = {word:?}: did you mean {near:?}?"),
        None => {
            let list: Vec<&str> = known().collect();
            format!("scheduler.{key} = {word:?}: use one of {}", list.join(", "))
        }
    })
}

impl Order {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(ORDERS, self)
    }
}

impl MpiDefault {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(MPI, self)
    }
}

impl Backfill {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(BACKFILLS, self)
    }
}

impl Packing {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        word_of(PACKINGS, self)
    }
}

impl Shadows {
    /// As it is written.
    #[must_use]
    pub fn word(self) -> String {
        match self {
            Shadows::First(count) => count.to_string(),
            Shadows::All => "all".to_owned(),
        }
    }
}

fn word_of<T: PartialEq>(all: &[(&'static str, T)], of: T) -> &'static str {
    all.iter().find(|(_, choice)| *choice == of).map_or("", |(word, _)| word)
}
