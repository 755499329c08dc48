//! What is asked of tokens, and of what was done with them.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use sluice_model::{NodeName, Role, TokenId, TokenKind, TokenState};

use super::values::{Moment, positive_duration, role, token_kind, token_state};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token, and print it: one with which edges join, or with --role one for the API
    ///
    /// A token for the API stands in a copy of operator.toml in the place of the token there: whoever has that file may
    /// do what the role may, until the token ends or is revoked.
    #[command(
        after_help = "Examples:\n  sluice token create > token.txt\n  sluice token create --role deployer --name ci --ttl 90d\n  sluice token create --uses 0 --ttl 24h\n  \
        sluice token create --node e1      # e1 lost its disk and comes back to its work"
    )]
    Create(TokenCreateArgs),
    /// Every token that has not ended; never its secret
    #[command(
        after_help = "Examples:\n  sluice token list\n  sluice token list --role admin --output json\n  sluice token list --state revoked\n  \
        sluice token list --kind join --all"
    )]
    List {
        /// Only those for this: join or api
        #[arg(long, value_name = "KIND", value_parser = token_kind)]
        kind: Option<TokenKind>,
        /// Only those for the API with this role: reader, deployer or admin
        #[arg(long, value_name = "ROLE", value_parser = role)]
        role: Option<Role>,
        /// Only in this state: valid, used-up, expired or revoked
        #[arg(long, value_name = "STATE", value_parser = token_state)]
        state: Option<TokenState>,
        /// Also those that ended; the last 10,000 are remembered
        #[arg(long)]
        all: bool,
    },
    /// One token, one that ended too: what it is for, who made it, when and how it ends
    #[command(
        after_help = "Examples:\n  sluice token describe 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11"
    )]
    Describe {
        /// Its id, as `sluice token list` and `sluice audit` show it
        id: TokenId,
    },
    /// Make a token worthless; edges that joined with it stay
    #[command(after_help = "Examples:\n  sluice token revoke 0c5e3c0e-8d25-4a4c-b3a7-0f1f5a0a6b11")]
    Revoke {
        /// Its id, as `sluice token list` shows it
        id: TokenId,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct TokenCreateArgs {
    /// How long it can be used [default: 1h; with --role 30d]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
    pub(crate) ttl: Option<Duration>,
    /// For the API, to do what this role may: reader looks, deployer deploys and orders jobs, admin does everything
    #[arg(long, value_parser = role, value_name = "reader|deployer|admin", conflicts_with_all = ["uses", "node", "rejoin"])]
    pub(crate) role: Option<Role>,
    /// Who or what a token for the API is for; the audit log shows it
    #[arg(long, value_name = "NAME", requires = "role")]
    pub(crate) name: Option<String>,
    /// How many edges may join with it; 0 = any number until it expires
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) uses: u64,
    /// Only for this node; one that lost its disk gets its id and its work back
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<NodeName>,
    /// For any registered node that lost its disk
    #[arg(long)]
    pub(crate) rejoin: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AuditArgs {
    /// Only what was asked for as this operation, such as job.deploy
    #[arg(long, value_name = "OPERATION")]
    pub(crate) operation: Option<String>,
    /// Only what was asked for with this token: its id, or operator.toml
    #[arg(long, value_name = "ID")]
    pub(crate) token: Option<String>,
    /// Only what ended so: done, refused, or why, such as forbidden
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,
    /// Only what came then or later: a time such as 2026-11-01T00:00:00Z, or how long ago, such as 24h
    #[arg(long, value_name = "TIME|DURATION")]
    pub(crate) since: Option<Moment>,
    /// Only what came before
    #[arg(long, value_name = "TIME|DURATION")]
    pub(crate) until: Option<Moment>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = sluice_api::AUDIT_LIMIT_DEFAULT,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}
