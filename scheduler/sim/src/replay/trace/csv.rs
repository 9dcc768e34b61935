//! A table with a header line: columns by name, faults by line. No quoting: none of the formats
//! has any.

use super::Fault;

/// The lines of a table after its header.
pub(super) struct Table<'a> {
    file: &'a str,
    columns: Vec<&'a str>,
    lines: Box<dyn Iterator<Item = (usize, &'a str)> + 'a>,
}

/// One line.
pub(super) struct Row<'a, 't> {
    table_file: &'a str,
    columns: &'t [&'a str],
    pub(super) line: usize,
    values: Vec<&'a str>,
}

impl<'a> Table<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let header = lines.next().map_or("", |(_, line)| line);
        let columns = header.split(',').map(str::trim).collect();
        Table { file, columns, lines: Box::new(lines) }
    }

    /// Hands every line to `take`.
    pub(super) fn each(
        self,
        mut take: impl FnMut(Row<'a, '_>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        for (line, text) in self.lines {
            let values: Vec<&str> = text.split(',').map(str::trim).collect();
            if values.len() != self.columns.len() {
                let what = format!("{} values under {} columns", values.len(), self.columns.len());
                return Err(Fault::Line { file: self.file.to_owned(), line, what });
            }
            take(Row { table_file: self.file, columns: &self.columns, line, values })?;
        }
        Ok(())
    }
}

impl<'a> Row<'a, '_> {
    pub(super) fn fault(&self, what: String) -> Fault {
        Fault::Line { file: self.table_file.to_owned(), line: self.line, what }
    }

    /// The value of a column that the format has.
    pub(super) fn text(&self, column: &str) -> &'a str {
        let at = self.columns.iter().position(|c| *c == column);
        at.map_or("", |at| self.values[at])
    }

    /// A whole number; `None` where nothing stands.
    pub(super) fn maybe(&self, column: &str) -> Result<Option<i64>, Fault> {
        let text = self.text(column);
        if text.is_empty() {
            return Ok(None);
        }
        let number = text.parse().map(Some);
        number.map_err(|_| self.fault(format!("{column} is {text:?}, not a whole number")))
    }

    pub(super) fn number(&self, column: &str) -> Result<i64, Fault> {
        let value = self.maybe(column)?;
        value.ok_or_else(|| self.fault(format!("{column} is missing")))
    }

    /// A number from 0 on; a negative one is a fault.
    pub(super) fn count(&self, column: &str) -> Result<u32, Fault> {
        let value = self.number(column)?;
        u32::try_from(value).map_err(|_| self.fault(format!("{column} is {value}")))
    }

    pub(super) fn size(&self, column: &str) -> Result<u64, Fault> {
        let value = self.number(column)?;
        u64::try_from(value).map_err(|_| self.fault(format!("{column} is {value}")))
    }
}
