//! Who carries out requests: threads that may wait and open files. The threads of the API may
//! neither (docs/design/0016-compartments.md), nor can they make threads: they ask by message.

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

type Errand = Box<dyn FnOnce() + Send>;

/// A way to have something done. As many errands wait as there are who ask: each has one.
#[derive(Clone, Debug)]
pub struct Hands(mpsc::UnboundedSender<Errand>);

/// The other end, which belongs on the runtime whose threads are to do it.
#[derive(Debug)]
pub struct Errands(mpsc::UnboundedReceiver<Errand>);

/// Both ends.
#[must_use]
pub fn hands() -> (Hands, Errands) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (Hands(sender), Errands(receiver))
}

impl Hands {
    /// Has it done, and waits for the result. `None` if it panicked, or nobody is there any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        // Whoever has asked may have gone: the answer is nobody's then.
        let errand = move || drop(answer.send(f()));
        self.0.send(Box::new(errand)).ok()?;
        answered.await.ok()
    }
}

impl Errands {
    /// Has each done on a thread of the runtime's own, for as long as somebody can ask.
    pub async fn run(mut self) {
        while let Some(errand) = self.0.recv().await {
            spawn_blocking(errand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errand_is_done_elsewhere_and_one_that_panics_answers_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (hands, errands) = hands();
        runtime.spawn(errands.run());
        let here = std::thread::current().id();
        let there = runtime.block_on(hands.run(|| std::thread::current().id()));
        assert_ne!(there, None);
        assert_ne!(there, Some(here));
        assert_eq!(runtime.block_on(hands.run(|| panic!("as planned"))), None::<()>);
        drop(runtime);
        let another = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert_eq!(another.block_on(hands.run(|| 1)), None, "nobody is there any more");
    }
}
