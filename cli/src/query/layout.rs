//! Column layouts: `-o "%.18i %j"`, `-O Field:width,Field:SUFFIX`, `-o Field%width`.
//!
//! A [`Layout`] is literal text and columns in order. It knows neither jobs nor nodes: whoever
//! prints brings a table of named columns and the cell texts. Widths count characters; a cell
//! wider than its column is cut. Literal text goes through untouched, escapes included.

/// How wide a column is and where its text stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Width {
    /// In characters; 0: as wide as the text.
    pub(crate) chars: usize,
    /// Blanks on the left instead of on the right.
    pub(crate) right: bool,
}

/// A column: which one, how wide and the literal text after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column {
    /// Index into the caller's table.
    pub(crate) field: usize,
    pub(crate) width: Width,
    pub(crate) suffix: String,
}

/// What one line looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Literal text before the first column.
    pub(crate) prefix: String,
    pub(crate) columns: Vec<Column>,
    /// Codes or names that the table does not have, as written.
    pub(crate) unknown: Vec<String>,
}

impl Layout {
    /// One line, without its line break; `cell` gives the text of a table row's index.
    pub(crate) fn line(&self, mut cell: impl FnMut(usize) -> String) -> String {
        let mut out = self.prefix.clone();
        for column in &self.columns {
            put(&mut out, &cell(column.field), column.width);
            out.push_str(&column.suffix);
        }
        out
    }

    /// Whether a column of the table is shown.
    pub(crate) fn shows(&self, field: usize) -> bool {
        self.columns.iter().any(|c| c.field == field)
    }
}

/// Appends `text`, padded or cut to `width`.
pub(crate) fn put(out: &mut String, text: &str, width: Width) {
    if width.chars == 0 {
        out.push_str(text);
        return;
    }
    let len = text.chars().count();
    let blanks = width.chars.saturating_sub(len);
    if width.right {
        out.extend(std::iter::repeat_n(' ', blanks));
    }
    out.extend(text.chars().take(width.chars));
    if !width.right {
        out.extend(std::iter::repeat_n(' ', blanks));
    }
}

/// Reads a `-o` text: `%[[.]width]letter` between literals. `%all` is every column of `all`,
/// separated by `|`. `find` maps a letter to the caller's table.
pub(crate) fn letters(text: &str, all: &[usize], find: impl Fn(char) -> Option<usize>) -> Layout {
    let mut layout = Layout::default();
    let mut pieces = text.split('%');
    layout.prefix = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        // A doubled percent sign reads as one that starts a column.
        if piece.is_empty() {
            continue;
        }
        if let Some(rest) = piece.strip_prefix("all") {
            push_all(&mut layout, all, rest);
            continue;
        }
        let (width, rest) = read_width(piece);
        let mut chars = rest.chars();
        let letter = chars.next().unwrap_or(' ');
        match find(letter) {
            Some(field) => {
                let suffix = chars.as_str().to_owned();
                layout.columns.push(Column { field, width, suffix });
            }
            None => layout.unknown.push(letter.to_string()),
        }
    }
    layout
}

fn push_all(layout: &mut Layout, all: &[usize], suffix: &str) {
    let width = Width { chars: 0, right: false };
    for (at, field) in all.iter().enumerate() {
        let last = at + 1 == all.len();
        let suffix = if last { suffix.to_owned() } else { "|".to_owned() };
        layout.columns.push(Column { field: *field, width, suffix });
    }
}

/// Reads `[.|-]digits` off the front: `.` stands right, `-` left as without it.
fn read_width(text: &str) -> (Width, &str) {
    let (right, rest) = match text.strip_prefix('.') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('-').unwrap_or(text)),
    };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    // A width beyond usize is no width: the text then stands as it is.
    let chars = rest[..digits].parse().unwrap_or(0);
    (Width { chars: usize::min(chars, MAX_WIDTH), right }, &rest[digits..])
}

/// Wider columns would only let a typing error eat the memory.
const MAX_WIDTH: usize = 65_536;

/// Reads a `-O` text: `Field[:[.][width][suffix]]` between commas; without a colon the column is
/// 20 wide and cut there.
pub(crate) fn names(text: &str, find: impl Fn(&str) -> Option<usize>) -> Layout {
    let mut layout = Layout::default();
    for item in text.split(',').filter(|item| !item.is_empty()) {
        let (name, width, suffix) = match item.split_once(':') {
            None => (item, Width { chars: 20, right: false }, ""),
            Some((name, form)) => {
                let (width, suffix) = read_width(form);
                // A lone '-' or '.' before something that is no number belongs to the suffix.
                let plain = width.chars == 0 && !form.starts_with('.');
                (name, width, if plain { form } else { suffix })
            }
        };
        let suffix = if suffix.starts_with(|c: char| c.is_ascii_digit()) { "" } else { suffix };
        match find(name.trim()) {
            Some(field) => layout.columns.push(Column { field, width, suffix: suffix.to_owned() }),
            None => layout.unknown.push(name.trim().to_owned()),
        }
    }
    layout
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [(&str, char, &str); 3] =
        [("JobId", 'i', "123"), ("Name", 'j', "train"), ("tres-alloc", 'b', "N/A")];

    fn cell(field: usize) -> String {
        FIELDS[field].2.to_owned()
    }

    #[track_caller]
    fn check(text: &str, line: &str) {
        let layout =
            letters(text, &[0, 1, 2], |c| FIELDS.iter().position(|(_, code, _)| *code == c));
        assert_eq!(layout.line(cell), line, "{text}");
        assert!(layout.unknown.is_empty(), "{text}");
    }

    #[track_caller]
    fn check_names(text: &str, line: &str) {
        let layout =
            names(text, |n| FIELDS.iter().position(|(name, _, _)| name.eq_ignore_ascii_case(n)));
        assert_eq!(layout.line(cell), line, "{text}");
        assert!(layout.unknown.is_empty(), "{text}");
    }

    #[test]
    fn letters_have_width_side_and_literals_between() {
        check("%i", "123");
        check("%.18i %.3j|%-7j|", "               123 tra|train  |");
        check("%i\\x1f%j^^^%b", "123\\x1ftrain^^^N/A");
        check("\"%j\" ", "\"train\" ");
        check(" %%j ", " train ");
    }

    #[test]
    fn all_is_every_column() {
        check("%all", "123|train|N/A");
        check("<%all>", "<123|train|N/A>");
    }

    #[test]
    fn names_have_width_or_suffix() {
        check_names("JobID,name", "123                 train               ");
        check_names("jobid:###x###,NAME:3,tres-alloc:", "123###x###traN/A");
        check_names("jobid:.6 ,name: ", "   123 train ");
        check_names("jobid:-,name:-9", "123-train    ");
        check_names("jobid:\u{1f},name:0", "123\u{1f}train");
    }

    #[test]
    fn unknown_columns_are_reported() {
        let layout = letters("%i %! %j", &[], |c| (c == 'i').then_some(0));
        assert_eq!(layout.unknown, ["!", "j"]);
        let layout = names("nosuch,jobid", |n| (n == "jobid").then_some(0));
        assert_eq!(layout.unknown, ["nosuch"]);
    }
}
