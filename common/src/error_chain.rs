//! Errors with all that caused them, on one line.

use std::error::Error;
use std::fmt;

/// Prints an error and its sources, joined by `: `; a source that the text before already ends with is not repeated.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        formatter.write_str(&text)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let next = error.to_string();
            if !text.ends_with(&next) {
                write!(formatter, ": {next}")?;
            }
            text = next;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    enum Outer {
        #[error("no connection")]
        Quiet(#[source] io::Error),
        #[error("no connection: {0}")]
        Told(#[source] io::Error),
    }

    #[test]
    fn sources_are_told_once() {
        let refused = || io::Error::other("refused");
        assert_eq!(Chain(&Outer::Quiet(refused())).to_string(), "no connection: refused");
        assert_eq!(Chain(&Outer::Told(refused())).to_string(), "no connection: refused");
    }
}
