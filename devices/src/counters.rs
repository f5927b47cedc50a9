//! How many payload bytes took which way, and what was refused.
//!
//! Plain integers: the event loop that owns a device owns its counters and publishes copies.

/// Reasons why a packet is not its guest's to send; `net::Offence` has them.
pub const SPOOFED: usize = 6;

/// Payload and fault counts of one device or of a whole loop. Bytes are payload bytes: no virtio
/// header, no status byte, no Ethernet header that was read to be checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that moved between device and guest memory without a copy (O_DIRECT).
    pub direct_bytes: u64,
    /// Bytes that this crate copied: bounce buffers and received packets.
    pub copied_by_us_bytes: u64,
    /// Bytes that the kernel copies: buffered file I/O and writes to a TAP.
    pub copied_by_kernel_bytes: u64,
    /// Blocks of a disk that were read, changed and written back, because a request covered them in
    /// part. Each costs the disk a read and a write.
    pub read_modify_writes: u64,
    /// Requests or packets that were finished as the guest asked.
    pub completed: u64,
    /// Requests that were answered with an error status by the host's I/O.
    pub io_errors: u64,
    /// Chains that broke a rule of the device and were answered with an error status.
    pub refused: u64,
    /// Chains that had no usable status byte and were returned unanswered.
    pub unanswerable: u64,
    /// Packets of the guest that were dropped: malformed, too short or too long.
    pub dropped_tx: u64,
    /// Of them: packets that were not the guest's to send, in the order of
    /// `net::Offence::ALL`.
    pub spoofed: [u64; SPOOFED],
    /// Packets for the guest that were dropped: no receive buffer, or none large enough.
    pub dropped_rx: u64,
}

impl Counters {
    /// Adds the counts of `other`, for totals over devices.
    pub fn add(&mut self, other: &Self) {
        let Self {
            direct_bytes,
            copied_by_us_bytes,
            copied_by_kernel_bytes,
            read_modify_writes,
            completed,
            io_errors,
            refused,
            unanswerable,
            dropped_tx,
            spoofed,
            dropped_rx,
        } = other;
        self.direct_bytes += direct_bytes;
        self.copied_by_us_bytes += copied_by_us_bytes;
        self.copied_by_kernel_bytes += copied_by_kernel_bytes;
        self.read_modify_writes += read_modify_writes;
        self.completed += completed;
        self.io_errors += io_errors;
        self.refused += refused;
        self.unanswerable += unanswerable;
        self.dropped_tx += dropped_tx;
        self.spoofed.iter_mut().zip(spoofed).for_each(|(sum, count)| *sum += count);
        self.dropped_rx += dropped_rx;
    }
}
