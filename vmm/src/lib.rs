//! The tenant process: KVM, guest memory, boot, vCPUs, virtio transports.
