//! Column tables of `sacct` and `sstat`: `-o Field%width,...`, `-p`, `-P`, `--delimiter`.

use super::layout::{Width, put};

/// A column: the caller's table index, and its width; negative: text on the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) field: usize,
    pub(super) width: i32,
}

/// How lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Style {
    /// Padded, each column followed by a blank.
    Padded,
    /// As wide as the text, with this between columns.
    Between(String),
    /// As wide as the text, with this after each column.
    After(String),
}

/// What one line looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Columns {
    pub(super) list: Vec<Column>,
    pub(super) style: Style,
}

impl Columns {
    /// Reads `Field[%width],...`. A name may be shortened; `all` stands for every field. The
    /// table gives names and default widths.
    ///
    /// # Errors
    /// The name that no field has.
    pub(super) fn read(text: &str, table: &[(&str, i32)], style: Style) -> Result<Self, String> {
        let mut list = Vec::new();
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let (name, width) = match item.split_once('%') {
                Some((name, width)) => (name, width.parse().ok()),
                None => (item, None),
            };
            if name.eq_ignore_ascii_case("all") {
                list.extend(
                    table
                        .iter()
                        .enumerate()
                        .map(|(field, (_, width))| Column { field, width: *width }),
                );
                continue;
            }
            let field = find(name, table).ok_or_else(|| name.to_owned())?;
            list.push(Column { field, width: width.unwrap_or(table[field].1) });
        }
        Ok(Columns { list, style })
    }

    /// The header, with the line of dashes below it where columns are padded.
    pub(super) fn header(&self, table: &[(&str, i32)]) -> String {
        if self.style != Style::Padded {
            return self.line(|field| table[field].0.to_owned());
        }
        let mut out = String::new();
        for column in &self.list {
            put(&mut out, table[column.field].0, room(column.width));
            out.push(' ');
        }
        out.push('\n');
        for column in &self.list {
            out.extend(std::iter::repeat_n('-', room(column.width).chars));
            out.push(' ');
        }
        out.push('\n');
        out
    }

    /// One line; a text that does not fit ends with `+`.
    pub(super) fn line(&self, mut cell: impl FnMut(usize) -> String) -> String {
        let mut out = String::new();
        for (at, column) in self.list.iter().enumerate() {
            let text = cell(column.field);
            match &self.style {
                Style::Padded => {
                    put(&mut out, &cut(text, room(column.width).chars), room(column.width));
                    out.push(' ');
                }
                Style::Between(text_between) => {
                    if at > 0 {
                        out.push_str(text_between);
                    }
                    out.push_str(&text);
                }
                Style::After(text_after) => {
                    out.push_str(&text);
                    out.push_str(text_after);
                }
            }
        }
        out.push('\n');
        out
    }
}

/// The first field of that name, else the first whose name starts so.
fn find(name: &str, table: &[(&str, i32)]) -> Option<usize> {
    let exact = table.iter().position(|(field, _)| field.eq_ignore_ascii_case(name));
    exact.or_else(|| {
        let starts = |field: &str| {
            field.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        table.iter().position(|(field, _)| !name.is_empty() && starts(field))
    })
}

fn room(width: i32) -> Width {
    Width { chars: width.unsigned_abs() as usize, right: width > 0 }
}

fn cut(text: String, width: usize) -> String {
    if width == 0 || text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width - 1).collect();
    short.push('+');
    short
}

/// Every name of a table, four to a line: `--helpformat`.
pub(super) fn help_format(table: &[(&str, i32)]) -> String {
    let mut out = String::new();
    for line in table.chunks(4) {
        let names: String = line.iter().map(|(name, _)| format!("{name:<19} ")).collect();
        out.push_str(names.trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: [(&str, i32); 4] = [("JobID", -12), ("JobIDRaw", -12), ("State", 10), ("User", 9)];

    fn cell(field: usize) -> String {
        ["12", "12", "OUT_OF_MEMORY", "alice"][field].to_owned()
    }

    #[track_caller]
    fn check(text: &str, style: Style, header: &str, line: &str) {
        let columns = Columns::read(text, &TABLE, style).expect(text);
        assert_eq!(columns.header(&TABLE), header);
        assert_eq!(columns.line(cell), line);
    }

    #[test]
    fn padded_columns_cut_with_a_plus() {
        let header = "JobID             State \n------------ ---------- \n";
        check("jobid,state", Style::Padded, header, "12           OUT_OF_ME+ \n");
        let header = "User   State         \n------ ------------- \n";
        check("user%-6,STATE%-13", Style::Padded, header, "alice  OUT_OF_MEMORY \n");
    }

    #[test]
    fn parsable_columns_are_as_wide_as_their_text() {
        let between = Style::Between("|".into());
        check("JobIdR,Sta%3", between, "JobIDRaw|State\n", "12|OUT_OF_MEMORY\n");
        check("user,jobid", Style::After("^|^".into()), "User^|^JobID^|^\n", "alice^|^12^|^\n");
    }

    #[test]
    fn a_name_nobody_has_is_reported() {
        assert_eq!(Columns::read("jobid,nosuch", &TABLE, Style::Padded), Err("nosuch".to_owned()));
        let all = Columns::read("ALL", &TABLE, Style::Padded).unwrap();
        assert_eq!(all.list.len(), TABLE.len());
    }
}
