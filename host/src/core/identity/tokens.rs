//! Tokens as people see them: those that open something, and what is remembered of those that ended.

use sluice_api::{ErrorBody, ErrorCode, Page, PageQuery, Token, TokenFilter};
use sluice_model::{TokenId, TokenKind, TokenState, UnixMs};

use super::super::Core;
use super::super::operator::{Called, Reply};
use crate::store::{ApiTokenRecord, EndedTokenRecord, Store, StoreError, TokenRecord};

pub(super) fn no_token(id: TokenId) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("no token {id}"))
        .with_help("`sluice token list --all` lists them, those that ended too")
}

impl<S: Store> Core<S> {
    pub(in crate::core) fn list_tokens(
        &mut self,
        filter: &TokenFilter,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        let tokens = self.store.tokens()?;
        let mut shown: Vec<Token> = tokens.iter().map(|token| show(token, now)).collect();
        let tokens = self.store.api_tokens()?;
        shown.extend(tokens.iter().map(|token| show_api(token, now)));
        let ended = [Some(TokenState::Expired), Some(TokenState::Revoked)];
        if filter.all || ended.contains(&filter.state) {
            shown.extend(self.store.ended_tokens()?.iter().map(show_ended));
        }
        shown.retain(|token| {
            let open = filter.all || token.ended_at.is_none();
            filter.state.map_or(open, |state| token.state == state)
                && filter.kind.is_none_or(|kind| token.kind == kind)
                && filter.role.is_none_or(|role| token.role == Some(role))
        });
        let key = |token: &Token| format!("{:020}/{}", token.expires_at.0.max(0), token.id);
        shown.sort_by_key(key);
        let query = PageQuery {
            limit: filter.limit,
            cursor: filter.cursor.clone(),
        };
        Ok(Page::of_list(shown, &query, key).map(Reply::Tokens))
    }

    pub(in crate::core) fn show_token(
        &mut self,
        id: TokenId,
        now: UnixMs,
    ) -> Result<Called, StoreError> {
        Ok(match self.find_token(id, now)? {
            Some(token) => Ok(Reply::Token(token)),
            None => Err(no_token(id)),
        })
    }

    /// A token of either sort, one that ended too.
    pub(super) fn find_token(
        &mut self,
        id: TokenId,
        now: UnixMs,
    ) -> Result<Option<Token>, StoreError> {
        if let Some(token) = self.store.token(id)? {
            return Ok(Some(show(&token, now)));
        }
        if let Some(token) = self.store.api_tokens()?.iter().find(|token| token.id == id) {
            return Ok(Some(show_api(token, now)));
        }
        Ok(self.store.ended_token(id)?.as_ref().map(show_ended))
    }
}

/// When and how a token ends by its time. The two sorts differ at the last millisecond, as they do where they are used.
fn expiry(expires_at: UnixMs, is_over: bool) -> (TokenState, Option<UnixMs>) {
    if is_over {
        (TokenState::Expired, Some(expires_at))
    } else {
        (TokenState::Valid, None)
    }
}

fn show(token: &TokenRecord, now: UnixMs) -> Token {
    let (mut state, ended_at) = expiry(token.expires_at, token.expires_at < now);
    if state == TokenState::Valid && token.uses_left == Some(0) {
        state = TokenState::UsedUp;
    }
    Token {
        id: token.id,
        kind: TokenKind::Join,
        state,
        node: token.node.clone(),
        rejoin: token.rejoin,
        uses_left: token.uses_left,
        expires_at: token.expires_at,
        ended_at,
        created_at: token.created_at,
        created_by: token.created_by.clone(),
        role: None,
        name: None,
    }
}

fn show_api(token: &ApiTokenRecord, now: UnixMs) -> Token {
    let (state, ended_at) = expiry(token.expires_at, token.expires_at <= now);
    Token {
        id: token.id,
        kind: TokenKind::Api,
        state,
        node: None,
        rejoin: false,
        uses_left: None,
        expires_at: token.expires_at,
        ended_at,
        created_at: token.created_at,
        created_by: token.created_by.clone(),
        role: Some(token.role),
        name: token.name.clone(),
    }
}

fn show_ended(token: &EndedTokenRecord) -> Token {
    Token {
        id: token.id,
        kind: match token.role {
            Some(_) => TokenKind::Api,
            None => TokenKind::Join,
        },
        state: match token.revoked {
            true => TokenState::Revoked,
            false => TokenState::Expired,
        },
        node: token.node.clone(),
        rejoin: token.rejoin,
        uses_left: token.uses_left,
        expires_at: token.expires_at,
        ended_at: Some(token.ended_at),
        created_at: token.created_at,
        created_by: token.created_by.clone(),
        role: token.role,
        name: token.name.clone(),
    }
}
