//! The logs of all parts on one terminal.

use std::io::{IsTerminal as _, Write as _};

/// Width of the longest part's name.
const WIDTH: usize = "query-api".len();

/// ANSI colours, by part.
const COLOURS: [(&str, &str); 5] = [
    ("postgres", "34"),
    ("registry", "35"),
    ("indexer", "32"),
    ("query-api", "36"),
    ("proxy", "33"),
];

/// Prints lines with the name of the part in front, coloured on a terminal.
pub(crate) struct Printer {
    coloured: bool,
}

impl Printer {
    pub(crate) fn new() -> Self {
        Self {
            coloured: std::io::stdout().is_terminal(),
        }
    }

    /// A line of a part's log.
    pub(crate) fn print(&self, part: &str, line: &str) {
        self.print_block(&self.prefixed(part, line));
    }

    /// Text of our own. A terminal that is gone is no reason to stop before the parts are down.
    pub(crate) fn print_block(&self, text: &str) {
        writeln!(std::io::stdout().lock(), "{text}").ok();
    }

    fn prefixed(&self, part: &str, line: &str) -> String {
        let colour = COLOURS
            .iter()
            .find(|(name, _)| *name == part)
            .map(|(_, colour)| *colour);
        match colour.filter(|_| self.coloured) {
            Some(colour) => format!("\x1b[{colour}m{part:WIDTH$} |\x1b[0m {line}"),
            None => format!("{part:WIDTH$} | {line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_aligned_and_coloured_only_on_a_terminal() {
        let plain = Printer { coloured: false };
        assert_eq!(plain.prefixed("indexer", "hello"), "indexer   | hello");
        assert_eq!(plain.prefixed("query-api", "hello"), "query-api | hello");
        let coloured = Printer { coloured: true };
        assert_eq!(coloured.prefixed("proxy", "hello"), "\x1b[33mproxy     |\x1b[0m hello");
    }
}
