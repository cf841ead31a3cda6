//! A session's messages, looked at without touching them: what waits, what is in flight, its will.
//!
//! What is in memory is shown at once. What lies on disk only is asked for ([`Answer::OnDisk`]): whoever looks has
//! it read, hands it to the [`Browse`] and asks again. The cluster remembers nothing of it and may change
//! meanwhile; every answer is of the moment at which it is given.
//!
//! An answer is bounded by a number of messages and by [`ANSWER_BYTES_MAX`]; one message is shown whatever its
//! length. Retained messages owed to a new subscription are not shown, as they are not counted.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::Arc;

use super::Cluster;
use super::backlog::own_cursor;
use super::deliver::{before_each, keys_of};
use crate::data_plane::message_log::{Found, LogEntry};
use crate::data_plane::protocol::{ForwardedProperties, ForwardedProperty};
use crate::data_plane::session::outbound::{Delivery, Phase};
use crate::data_plane::session::progress::{Body, Frozen};
use crate::data_plane::session::{HeldWill, Session};
use crate::model::{ClientId, ClientKey, FilterId, FilterKey, GroupId, Message, Place, Seq};
use crate::seam::command::CommandError;
use crate::seam::messages::{
    BrowseOf, BrowsePlace, BrowseRequest, Browsed, BrowsedMessage, Exchange, ExchangePhase, ShownMessage,
    ShownProperties, ShownWill,
};

/// How many bytes of messages one answer has at most.
const ANSWER_BYTES_MAX: usize = 1_024 * 1_024;

/// How often the disk is asked for one answer. What is not found by then comes with the next one.
const READS_MAX: usize = 16;

/// Among how many sessions those of publishers are looked for, in one answer.
const LOOKS_MAX: usize = 20_000;

/// A look at a session's messages, with what was read for it from disk so far.
#[derive(Debug)]
pub struct Browse {
    request: BrowseRequest,
    found: HashMap<Seq, LogEntry>,
    /// Everything there is up to here was found.
    through: Option<Seq>,
    reads: usize,
}

/// What is known, or what is to be read from disk first.
#[derive(Debug)]
pub enum Answer<T> {
    /// The answer.
    Known(T),
    /// To be read, and then to be asked again.
    OnDisk(DiskQuestion),
}

/// Something to be read from disk.
#[derive(Clone, Debug)]
pub struct DiskQuestion {
    /// Under these filters, behind the position beside each.
    pub after: Vec<(FilterKey, Seq)>,
    /// Up to here.
    pub through: Seq,
    /// At most so many messages, the earliest.
    pub messages_max: usize,
}

impl Browse {
    /// A look at what `request` says.
    pub fn new(request: BrowseRequest) -> Self {
        Self { request, found: HashMap::new(), through: None, reads: 0 }
    }

    /// Takes what was read. All there is of what was asked for, up to `through`, is in `entries`.
    pub fn take(&mut self, entries: Vec<LogEntry>, through: Seq) {
        self.found.extend(entries.into_iter().map(|entry| (entry.place.seq, entry)));
        self.through = self.through.max(Some(through));
        self.reads += 1;
    }
}

impl Cluster {
    /// Shows some of a session's messages.
    ///
    /// # Errors
    /// When there is no such session.
    pub fn browse(&self, browse: &Browse) -> Result<Answer<Browsed>, CommandError> {
        let session = self.session_of(&browse.request.client_id)?;
        let mut page = Page::new(browse.request.messages_max);
        let next = match browse.request.of {
            BrowseOf::Backlog => self.backlog_page(session, browse, &mut page),
            BrowseOf::InFlight => self.in_flight_page(session, browse, &mut page),
        };
        Ok(match next {
            Answer::OnDisk(question) => Answer::OnDisk(question),
            Answer::Known(next) => {
                let messages = self.with_publishers(page.messages);
                Answer::Known(Browsed { session_id: session.id, messages, next })
            }
        })
    }

    /// Shows a session's will, if it has one.
    ///
    /// # Errors
    /// When there is no such session.
    pub fn will_of(&self, client_id: &ClientId) -> Result<Option<ShownWill>, CommandError> {
        let session = self.session_of(client_id)?;
        let shown = |will: &HeldWill| ShownWill {
            session_id: session.id,
            message: ShownMessage { publisher: Some(client_id.clone()), ..shown(&will.message) },
            message_expiry_secs: will.message_expiry_secs,
            delay_secs: will.delay_secs,
            due_at: will.due_at,
        };
        Ok(session.will.as_deref().map(shown))
    }

    fn session_of(&self, client_id: &ClientId) -> Result<&Session, CommandError> {
        let slot = self.registry.get(client_id.as_str()).ok_or(CommandError::NoSuchSession)?;
        Ok(&self.sessions[slot.0 as usize])
    }

    /// Gives where to go on.
    fn backlog_page(
        &self,
        session: &Session,
        browse: &Browse,
        page: &mut Page,
    ) -> Answer<Option<BrowsePlace>> {
        let mut place = browse.request.after;
        for delivery in session.outbound.queued().skip(place.queued) {
            if !page.put(waiting(delivery)) {
                return Answer::Known(Some(place));
            }
            place.queued += 1;
        }
        if let Some(through) = browse.through {
            let mut entries: Vec<&LogEntry> = browse.found.values().collect();
            entries.sort_unstable_by_key(|entry| entry.place.seq);
            if !page.put_entries(session, &mut place, entries) {
                return Answer::Known(Some(place));
            }
            place.last = place.last.max(through.0);
        }
        let cursors = cursors_behind(session, Seq(place.last));
        let (mut entries, limit) = (Vec::new(), page.room());
        match self.log.read(&cursors, limit, &mut entries) {
            Found::OnDisk(through) if browse.reads == 0 => {
                let after = keys_of(&cursors, &self.index);
                Answer::OnDisk(DiskQuestion { after, through, messages_max: limit })
            }
            // There is room, and the messages that come first are on disk: another page shows them.
            Found::OnDisk(_) => Answer::Known(Some(place)),
            Found::InMemory => {
                let is_end = entries.len() < limit;
                let all = page.put_entries(session, &mut place, &entries);
                Answer::Known(if all && is_end { None } else { Some(place) })
            }
        }
    }

    /// Gives where to go on.
    fn in_flight_page(
        &self,
        session: &Session,
        browse: &Browse,
        page: &mut Page,
    ) -> Answer<Option<BrowsePlace>> {
        let outbound = &session.outbound;
        let mut place = browse.request.after;
        let at_hand = |at: Place| {
            let read = || browse.found.get(&at.seq).map(|entry| &entry.message);
            self.log.get(at.seq).or_else(read)
        };
        let unread = |at: &Place| at_hand(*at).is_none() && browse.through.is_none_or(|read| at.seq > read);
        let is_new = |number: u64| number > browse.request.after.last;
        let frozen = outbound.frozen().iter().filter(|it| is_new(it.number)).take(page.room());
        let missing: Vec<Place> = frozen.clone().filter_map(Frozen::place).filter(unread).collect();
        if let Some(through) = missing.iter().map(|at| at.seq).max().filter(|_| browse.reads < READS_MAX) {
            let (after, messages_max) = (before_each(&missing), missing.len());
            return Answer::OnDisk(DiskQuestion { after, through, messages_max });
        }
        for exchange in frozen {
            let is_unread = exchange.place().is_some_and(|at| unread(&at));
            let message = match &exchange.body {
                Body::Logged(at) => at_hand(*at),
                Body::Whole(message) => Some(message),
                Body::Consumed => None,
            };
            let shown = self.under_way(exchange, message.map(Arc::as_ref));
            // One is shown in any case, so that who goes on does not stay where he is.
            if (is_unread && !page.messages.is_empty()) || !page.put(shown) {
                return Answer::Known(Some(place));
            }
            place.last = exchange.number;
        }
        for (exchange, message) in outbound.under_way().filter(|(it, _)| is_new(it.number)) {
            if !page.put(self.under_way(&exchange, message)) {
                return Answer::Known(Some(place));
            }
            place.last = exchange.number;
        }
        let last = outbound.frozen().last().map(|it| it.number);
        Answer::Known(last.filter(|last| *last > place.last).map(|_| place))
    }

    fn under_way(&self, exchange: &Frozen, message: Option<&Message>) -> Shown {
        let share = |id: GroupId| self.groups.get(id).map(|group| group.share.clone());
        let phase = match exchange.phase {
            Phase::Published => ExchangePhase::Published,
            Phase::Released => ExchangePhase::Released,
        };
        let packet_id = NonZeroU16::new(exchange.packet_id().get()).unwrap_or(NonZeroU16::MIN);
        let shown = BrowsedMessage {
            position: exchange.place().map(|place| place.seq),
            qos: exchange.qos,
            retain: exchange.retain,
            subscription_ids: exchange.subscription_ids.to_vec(),
            exchange: Some(Exchange { packet_id, phase, share: exchange.group.and_then(share) }),
            message: message.map(shown),
        };
        Shown { shown, publisher: message.and_then(|message| message.publisher) }
    }

    /// Names those who published what is shown, as far as their sessions are found among the first
    /// [`LOOKS_MAX`]: messages remember a checksum of the client id only.
    fn with_publishers(&self, messages: Vec<Shown>) -> Vec<BrowsedMessage> {
        let mut wanted: HashSet<ClientKey> = messages.iter().filter_map(|it| it.publisher).collect();
        let mut names: HashMap<ClientKey, ClientId> = HashMap::new();
        for (_, session) in self.sessions.iter().take(LOOKS_MAX) {
            if wanted.is_empty() {
                break;
            }
            if wanted.remove(&session.client_key) {
                names.insert(session.client_key, session.client_id.clone());
            }
        }
        let attributed = |Shown { mut shown, publisher }: Shown| {
            if let Some(message) = shown.message.as_mut() {
                message.publisher = publisher.and_then(|key| names.get(&key).cloned());
            }
            shown
        };
        messages.into_iter().map(attributed).collect()
    }
}

/// A message with what is known of its publisher.
#[derive(Debug)]
struct Shown {
    shown: BrowsedMessage,
    publisher: Option<ClientKey>,
}

/// What one answer shows.
#[derive(Debug)]
struct Page {
    messages: Vec<Shown>,
    messages_max: usize,
    bytes: usize,
}

impl Page {
    fn new(messages_max: usize) -> Self {
        Self { messages: Vec::new(), messages_max, bytes: 0 }
    }

    /// How many messages still fit, if they are short.
    fn room(&self) -> usize {
        self.messages_max.saturating_sub(self.messages.len())
    }

    /// Puts a message on the page. Returns whether it fits.
    fn put(&mut self, message: Shown) -> bool {
        let bytes = message.shown.message.as_ref().map_or(0, |message| {
            let user = message.properties.user_properties.iter();
            let user: usize = user.map(|(name, value)| name.len() + value.len()).sum();
            message.topic.len() + message.payload.len() + user
        });
        let is_first = self.messages.is_empty();
        if self.room() == 0 || (!is_first && self.bytes + bytes > ANSWER_BYTES_MAX) {
            return false;
        }
        self.bytes += bytes;
        self.messages.push(message);
        true
    }

    /// Puts what the session wants of `entries`, in order, and moves `place` on. Returns whether all fit.
    fn put_entries<'a>(
        &mut self,
        session: &Session,
        place: &mut BrowsePlace,
        entries: impl IntoIterator<Item = &'a LogEntry>,
    ) -> bool {
        for entry in entries {
            if let Some(delivery) = session.delivery_of(&entry.message, entry.place)
                && !self.put(waiting(&delivery))
            {
                return false;
            }
            place.last = place.last.max(entry.place.seq.0);
        }
        true
    }
}

/// Where a session's own messages wait behind `last`.
fn cursors_behind(session: &Session, last: Seq) -> Vec<(FilterId, Seq)> {
    let own = session.subscriptions.iter().filter(|held| held.group.is_none());
    let cursors = own.filter_map(|held| own_cursor(session, held));
    cursors.map(|(filter, after)| (filter, after.max(last))).collect()
}

fn waiting(delivery: &Delivery) -> Shown {
    let shown = BrowsedMessage {
        position: delivery.place.map(|place| place.seq),
        qos: delivery.qos,
        retain: delivery.retain,
        subscription_ids: delivery.subscription_ids.to_vec(),
        exchange: None,
        message: Some(shown(&delivery.message)),
    };
    Shown { shown, publisher: delivery.message.publisher }
}

/// A message without its publisher's name.
fn shown(message: &Message) -> ShownMessage {
    ShownMessage {
        topic: message.topic.as_str().to_owned(),
        payload: message.payload.clone(),
        qos: message.qos,
        retain: message.retain,
        properties: properties(message),
        published_at: message.published_at,
        expires_at: message.expires_at,
        publisher: None,
    }
}

fn properties(message: &Message) -> ShownProperties {
    let mut shown = ShownProperties::default();
    for property in ForwardedProperties::of(&message.properties) {
        match property {
            ForwardedProperty::PayloadFormat { is_utf8 } => shown.payload_is_utf8 = Some(is_utf8),
            ForwardedProperty::ContentType(text) => shown.content_type = Some(text.to_owned()),
            ForwardedProperty::ResponseTopic(topic) => shown.response_topic = Some(topic.to_owned()),
            ForwardedProperty::CorrelationData(data) => {
                shown.correlation_data = Some(bytes::Bytes::copy_from_slice(data));
            }
            ForwardedProperty::UserProperty(name, value) => {
                shown.user_properties.push((name.to_owned(), value.to_owned()));
            }
        }
    }
    shown
}
