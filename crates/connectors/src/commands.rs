//! The commands that an edge's owner allows `[input.exec]` to run.
//!
//! A pipeline names a command; what it runs, with which arguments, is the owner's to say. Nothing that is not listed ever
//! runs, and no shell ever reads a word of it.

use std::collections::BTreeMap;
use std::io;
use std::str::FromStr;
use std::sync::Arc;

use sluice_model::CommandName;

/// Commands of one edge: each is a capability that travels in every Hello.
const COMMANDS_MAX: usize = 64;
/// Words of one command: a query has a handful.
const WORDS_MAX: usize = 64;
/// Bytes of one word: a path's bound on Linux.
const WORD_BYTES_MAX: usize = 4096;

/// The commands inputs may run, by name. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedCommands(Arc<BTreeMap<CommandName, CommandLine>>);

/// A program's absolute path and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

/// Why a command is not listed, did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The owner wrote it wrong.
    #[error("{problem}")]
    Policy {
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The pipeline names what the owner did not list.
    #[error(
        "this edge lists no command `{name}`: its owner can, with --allow-command '{name}=/path/to/program ARGUMENTS'"
    )]
    NotListed {
        /// As the pipeline wrote it.
        name: CommandName,
    },
    /// The program is not installed.
    #[error(
        "there is no program {program} on this machine (command `{name}`): install it, or list another path"
    )]
    NoProgram {
        /// The command.
        name: CommandName,
        /// The path.
        program: String,
    },
    /// The system did not start it.
    #[error("cannot start {program} (command `{name}`): {source}")]
    Start {
        /// The command.
        name: CommandName,
        /// The path.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with another code than 0, or by a signal.
    #[error("the command `{name}` ({program}) {how}{said}")]
    Failed {
        /// The command.
        name: CommandName,
        /// The path.
        program: String,
        /// In words.
        how: String,
        /// The last lines of its standard error, with what introduces them; may be empty.
        said: String,
    },
    /// It was killed.
    #[error(
        "the command `{name}` ({program}) had not ended after {deadline:?} and was killed{said}"
    )]
    Late {
        /// The command.
        name: CommandName,
        /// The path.
        program: String,
        /// How long it may run.
        deadline: std::time::Duration,
        /// As above.
        said: String,
    },
}

impl AllowedCommands {
    /// Lists commands.
    pub fn new(commands: BTreeMap<CommandName, CommandLine>) -> Result<Self, CommandError> {
        if commands.len() > COMMANDS_MAX {
            return Err(policy(format!("more than {COMMANDS_MAX} commands")));
        }
        Ok(Self(Arc::new(commands)))
    }

    /// The commands, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&CommandName, &CommandLine)> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a name stands for here.
    pub fn find(&self, name: &CommandName) -> Result<&CommandLine, CommandError> {
        self.0
            .get(name)
            .ok_or_else(|| CommandError::NotListed { name: name.clone() })
    }
}

impl CommandLine {
    /// A program's absolute path and its arguments.
    pub fn new(words: Vec<String>) -> Result<Self, CommandError> {
        let Some(program) = words.first() else {
            return Err(policy(
                "a command needs a program: an absolute path".to_owned(),
            ));
        };
        if !program.starts_with('/') {
            return Err(policy(format!(
                "{program:?} is no absolute path: nothing is looked up when a command runs"
            )));
        }
        if words.len() > WORDS_MAX {
            return Err(policy(format!("a command has at most {WORDS_MAX} words")));
        }
        if words
            .iter()
            .any(|word| word.len() > WORD_BYTES_MAX || word.contains('\0'))
        {
            return Err(policy(format!(
                "a word of a command has at most {WORD_BYTES_MAX} bytes and no NUL"
            )));
        }
        Ok(Self(words))
    }

    /// The program and its arguments.
    pub fn words(&self) -> &[String] {
        &self.0
    }
}

impl FromStr for CommandLine {
    type Err = CommandError;

    /// Words between spaces, taken as they are: no quotes, no variables.
    fn from_str(text: &str) -> Result<Self, CommandError> {
        Self::new(text.split_ascii_whitespace().map(str::to_owned).collect())
    }
}

fn policy(problem: String) -> CommandError {
    CommandError::Policy { problem }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_command_is_an_absolute_path_and_words_as_they_are() {
        let line: CommandLine = "/usr/bin/x  --a=$HOME 'b c'".parse().unwrap();
        assert_eq!(line.words(), ["/usr/bin/x", "--a=$HOME", "'b", "c'"]);
        for (wrong, said) in [
            (Vec::new(), "needs a program"),
            (vec!["nvidia-smi".to_owned()], "no absolute path"),
            (vec!["/a".to_owned(); 65], "at most 64 words"),
            (vec!["/a\0".to_owned()], "no NUL"),
            (vec![format!("/{}", "a".repeat(5000))], "at most 4096"),
        ] {
            let error = CommandLine::new(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
