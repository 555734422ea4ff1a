//! What the answers to a subscriber connection's commands mean.

use super::link::{Command, Link, Lost};
use super::redirection::Redirection;
use super::topology::slot as slot_of;
use super::wire::Item;
use crate::publication::Channel;

impl Link<'_> {
    /// An answer to the oldest command.
    pub(super) fn take_reply(&mut self, reply: Item, rest: &[u8]) -> Result<(), Lost> {
        let prefix = &self.subscriber.settings.prefix;
        let is = |name: &[u8], channel: &Channel| {
            name.strip_prefix(prefix.as_bytes()).is_some_and(|name| name == channel.as_bytes())
        };
        let done = match (reply, self.in_flight.front_mut()) {
            (Item::Subscribed(name), Some(Command::Subscribe { channels, confirmed, .. })) => {
                let Some(channel) = channels.get(*confirmed).filter(|channel| is(&rest[name], channel)) else {
                    return Err(Lost::OutOfStep);
                };
                *confirmed += 1;
                let told = self.subscriber.confirmed(channel);
                self.touched = self.touched.union(told);
                *confirmed == channels.len()
            }
            (Item::Unsubscribed(name), Some(Command::Unsubscribe { channels, confirmed })) => {
                let asked = channels.get(*confirmed).filter(|channel| is(&rest[name.clone()], channel));
                let Some(channel) = asked else {
                    if self.subscriber.settings.sharded {
                        self.subscriber.dropped(&rest[name]);
                        return Ok(());
                    }
                    return Err(Lost::OutOfStep);
                };
                *confirmed += 1;
                self.subscriber.channels.left(channel);
                *confirmed == channels.len()
            }
            (Item::Unsubscribed(name), _) if self.subscriber.settings.sharded => {
                self.subscriber.dropped(&rest[name]);
                return Ok(());
            }
            (Item::Pong, Some(Command::Ping)) => true,
            (Item::Error(text), front) if front.is_some() || self.subscriber.settings.sharded => {
                return self.take_error(&String::from_utf8_lossy(&rest[text]));
            }
            (Item::Error(text), _) => return Err(Lost::Error(String::from_utf8_lossy(&rest[text]).into_owned())),
            _ => return Err(Lost::OutOfStep),
        };
        if done {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// A command about one channel was refused, in a cluster: there each channel of [`Command`] is a command of its
    /// own.
    fn take_shard_error(&mut self, text: &str) -> Result<(), Lost> {
        let redirected = Redirection::parse(text);
        let prefix = &self.subscriber.settings.prefix;
        // When a slot moves while its channel is being let go, Redis answers twice: it takes the channel away, and then
        // does not have it. The second answer belongs to no command any more.
        let is_about = |channel: &Channel| match redirected {
            Some(Redirection { slot: Some(slot), .. }) => slot == slot_of(format!("{prefix}{channel}").as_bytes()),
            _ => true,
        };
        let done = match self.in_flight.front_mut() {
            Some(Command::Subscribe { channels, confirmed, .. }) => {
                let Some(channel) = channels.get(*confirmed).filter(|channel| is_about(channel)) else { return Ok(()) };
                *confirmed += 1;
                let done = *confirmed == channels.len();
                if redirected.is_some() {
                    self.subscriber.redirected(channel);
                } else if refuses_channels(text) {
                    let told = self.subscriber.refused(channel, text);
                    self.touched = self.touched.union(told);
                } else {
                    return Err(Lost::Error(text.to_owned()));
                }
                done
            }
            Some(Command::Unsubscribe { channels, confirmed }) if redirected.is_some() => {
                let Some(channel) = channels.get(*confirmed).filter(|channel| is_about(channel)) else { return Ok(()) };
                *confirmed += 1;
                self.subscriber.channels.left(channel);
                *confirmed == channels.len()
            }
            Some(Command::Ping) if redirected.is_some() => return Ok(()),
            None if redirected.is_some() => return Ok(()),
            // A user who may not PING is answered all the same.
            Some(Command::Ping) => true,
            _ => return Err(Lost::Error(text.to_owned())),
        };
        if done {
            self.in_flight.pop_front();
        }
        Ok(())
    }

    /// The oldest command was refused as a whole.
    fn take_error(&mut self, text: &str) -> Result<(), Lost> {
        if self.subscriber.settings.sharded {
            return self.take_shard_error(text);
        }
        match self.in_flight.pop_front() {
            // A user who may not PING is answered all the same.
            Some(Command::Ping) => Ok(()),
            Some(Command::Subscribe { channels, confirmed: 0, .. }) if refuses_channels(text) => {
                if let [channel] = channels.as_slice() {
                    let told = self.subscriber.refused(channel, text);
                    self.touched = self.touched.union(told);
                } else {
                    self.suspects.extend(channels);
                }
                Ok(())
            }
            _ => Err(Lost::Error(text.to_owned())),
        }
    }
}

/// Whether an error to SUBSCRIBE is about the channels. Other errors are about the connection: it is made anew, and its
/// handshake tells what is wrong.
fn refuses_channels(error: &str) -> bool {
    ["NOPERM", "MOVED", "CROSSSLOT", "ERR"].iter().any(|code| error.starts_with(code))
}
