//! Sessions that must not notice what happens to another one.

use tidegate::shard::stats::Wire;

use crate::support::TestNode;
use crate::support::client::Client;

const CHANNEL: &str = "bystanders";

/// One session for each wire, on one channel.
pub(crate) struct Bystanders {
    clients: Vec<Client>,
    published: u64,
}

impl Bystanders {
    pub(crate) async fn join(node: &TestNode) -> Self {
        let mut clients = Vec::new();
        // Twice as many as shards, so that every shard has some.
        for wire in Wire::ALL.into_iter().chain([Wire::WebSocketJson]) {
            clients.push(Client::subscribed(node, wire, CHANNEL).await);
        }
        Self { clients, published: 0 }
    }

    /// Publishes, and holds that every one of them receives just that and nothing else.
    pub(crate) async fn notice_nothing(&mut self, node: &TestNode) {
        for _ in 0..3 {
            self.published += 1;
            node.publish(CHANNEL, self.published.to_string()).await;
        }
        for client in &mut self.clients {
            for expected in self.published - 2..=self.published {
                assert_eq!(client.publication(CHANNEL).await.data, expected.to_string());
            }
        }
    }
}
