//! Paging by key: a page begins after the last key of the page before, so that the ten-thousandth
//! costs what the first does and rows that come and go in between shift nothing.
//!
//! A page token holds that key and the filter it belongs to; a token whose filter is another is
//! refused. It is not secret and not signed: it can only name a place in a list that its bearer may
//! read anyway.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::code::Code;
use super::problem::{Problem, Result};

/// The form of the tokens; another one would have another number.
const TOKEN_VERSION: u8 = 1;

/// How many items a page may have: 1 to 1,000, 100 when nothing is said. More is lowered silently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub(super) struct PageSize(u16);

impl PageSize {
    /// The largest page.
    pub(super) const MAX: u16 = 1_000;
    /// The page of a caller who does not say.
    pub(super) const DEFAULT: u16 = 100;
}

impl Default for PageSize {
    fn default() -> Self {
        Self(Self::DEFAULT)
    }
}

impl TryFrom<u64> for PageSize {
    type Error = &'static str;

    fn try_from(items: u64) -> Result<Self, Self::Error> {
        match items {
            0 => Err("at least 1"),
            // What the specification says an integer is.
            items if i64::try_from(items).is_err() => Err("at most 9223372036854775807"),
            items => Ok(Self(u16::try_from(items).unwrap_or(u16::MAX).min(Self::MAX))),
        }
    }
}

/// What a list without a filter is asked for with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// How many items a page has at most: 1 to 1000, 100 when not sent; more is lowered.
    pub(super) page_size: Option<PageSize>,
    /// Where the page begins: the `next_page_token` of the page before.
    #[param(min_length = 1, pattern = "^[A-Za-z0-9_-]+$")]
    pub(super) page_token: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The items, in order of their ids.
    pub(super) items: Vec<T>,
    /// Send it as `page_token`, with the same filter, to get the next page. Absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "WzEsIi4uLiIsIm1ldGVyLTE3Il0")]
    pub(super) next_page_token: Option<String>,
}

/// Where a page begins and how long it may be.
pub(super) struct Paging<K> {
    /// The key after which it begins.
    pub(super) after: Option<K>,
    size: PageSize,
    filter: String,
}

impl<K: Serialize + DeserializeOwned> Paging<K> {
    /// The page that `params` ask for, of a list that `bound` names: its name and the cluster.
    pub(super) fn of(params: &PageParams, bound: &impl Serialize) -> Result<Self> {
        Self::new(params.page_size, params.page_token.as_deref(), bound)
    }

    /// Reads what the caller sent. `filter` is whatever decides which rows the list has: its name,
    /// the cluster, every filter parameter.
    pub(super) fn new(size: Option<PageSize>, token: Option<&str>, filter: &impl Serialize) -> Result<Self> {
        let filter = serde_json::to_string(filter).map_err(Problem::internal)?;
        let after = token.map(|token| open(token, &filter)).transpose()?;
        Ok(Self { after, size: size.unwrap_or_default(), filter })
    }

    /// How many rows to ask for: one more than the page has, to know whether there is a next.
    pub(super) fn limit(&self) -> u32 {
        u32::from(self.size.0) + 1
    }

    /// How many items the page may have.
    pub(super) fn size(&self) -> u16 {
        self.size.0
    }

    /// The page of these items, of a list that goes on behind `next` whether or not the page is full.
    pub(super) fn page_until<T>(&self, items: Vec<T>, next: Option<&K>) -> Result<Page<T>> {
        let next_page_token = next.map(|key| seal(key, &self.filter)).transpose()?;
        Ok(Page { items, next_page_token })
    }

    /// The page of these rows, which were asked for with [`Paging::limit`].
    pub(super) fn page<R, T>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> K,
        show: impl Fn(R) -> T,
    ) -> Result<Page<T>> {
        let size = usize::from(self.size.0);
        let more = rows.len() > size;
        rows.truncate(size);
        let last = rows.last().filter(|_| more).map(key);
        let next_page_token = last.map(|key| seal(&key, &self.filter)).transpose()?;
        Ok(Page { items: rows.into_iter().map(show).collect(), next_page_token })
    }
}

fn seal<K: Serialize>(key: &K, filter: &str) -> Result<String> {
    let token = serde_json::to_vec(&(TOKEN_VERSION, filter, key)).map_err(Problem::internal)?;
    Ok(URL_SAFE_NO_PAD.encode(token))
}

fn open<K: DeserializeOwned>(token: &str, filter: &str) -> Result<K> {
    let refused = || {
        let detail = "it was not given out by this list with this filter";
        Problem::parameter(Code::PageTokenInvalid, "page_token", detail)
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    let (version, bound, key): (u8, String, K) = serde_json::from_slice(&bytes).map_err(|_| refused())?;
    if version == TOKEN_VERSION && bound == filter { Ok(key) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ClientId;

    fn paging(size: u64, token: Option<&str>, filter: &str) -> Result<Paging<ClientId>> {
        Paging::new(PageSize::try_from(size).ok(), token, &filter)
    }

    fn client(text: &str) -> ClientId {
        ClientId::new(text).expect("a client id")
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        let first = paging(2, None, "f").expect("a page");
        assert_eq!((first.after.as_ref(), first.limit()), (None, 3));
        let rows = vec![client("a"), client("ü/ \"b"), client("c")];
        let page = first.page(rows, Clone::clone, |id| id).expect("a page");
        assert_eq!(page.items, [client("a"), client("ü/ \"b")]);

        let token = page.next_page_token.expect("a token");
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'), "{token}");
        let second = paging(2, Some(&token), "f").expect("a page");
        assert_eq!(second.after, Some(client("ü/ \"b")));
        let page = second.page(vec![client("c")], Clone::clone, |id| id).expect("a page");
        assert_eq!(page.next_page_token, None);
    }

    #[test]
    fn a_token_is_good_for_its_filter_alone() {
        let token = seal(&client("a"), "\"f\"").expect("a token");
        assert!(paging(1, Some(&token), "f").is_ok());
        let key_of_no_client = seal(&"", "\"f\"").expect("a token");
        for (token, filter) in
            [(token.as_str(), "g"), ("", "f"), ("!", "f"), ("e30", "f"), (key_of_no_client.as_str(), "f")]
        {
            let problem = paging(1, Some(token), filter).err().expect("a problem");
            assert_eq!(problem.code(), Code::PageTokenInvalid, "{token} {filter}");
        }
    }

    #[test]
    fn sizes_are_lowered_but_not_raised() {
        assert_eq!(PageSize::try_from(1_000_000_000_000), Ok(PageSize(1_000)));
        assert_eq!(PageSize::try_from(1), Ok(PageSize(1)));
        assert!(PageSize::try_from(0).is_err());
    }
}
