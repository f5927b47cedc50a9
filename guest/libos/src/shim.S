# The only code that runs in ring 0, and the tables it needs.
#
# Some KVM hosts interpret ring 0 at half a microsecond an instruction, without SSE (platform.md), so
# it is a handful of instructions per event and ring 3 does everything else:
#   - 32-bit PVH entry -> long mode -> ring 3 (skipped by a VMM that honours the ring-3 note),
#   - device interrupts: note which one came, end it at the local APIC, return,
#   - exceptions: record them and continue in ring 3 at `failure_entry`,
#   - int3 gate, called by ring 3: halt if idle, rdmsr, wrmsr, cpuid, reset.
# Everything is static: nothing here is written at run time but the records and the stacks.

.set KERNEL_CODE, 0x10
.set KERNEL_DATA, 0x18
.set USER_DATA, 0x2b
.set USER_CODE, 0x33
.set TSS_SELECTOR, 0x40
.set USER_FLAGS, 0x3202         # IF, IOPL 3
.set STUBS, 0x200000            # fixed by link.ld
.set STUB_SIZE, 32
.set TSS, 0x440000              # fixed by link.ld
.set TSS_LIMIT, 0x68 + 8192     # I/O permission bitmap and its closing byte included
.set FIRST_IRQ, 0x40            # vectors 0x40..0x47: timer and devices
.set GATE_SERVICES, 5
.set LAPIC_EOI, 0xfee000b0

# ---------------------------------------------------------------------------------------- ELF notes
.section .note.boot, "a", @note
.balign 4
    .long 4, 8, 18              # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry
.balign 4
    .long 7, 72, 1              # abi::boot::Ring3Note
    .asciz "Moirai"
    .balign 4
    .quad 1                     # version
    .quad ring3_entry
    .quad user_stack_top
    .quad pml4
    .quad gdt
    .quad gdt_end - gdt - 1
    .quad idt
    .quad tss
    .quad TSS_LIMIT

# ------------------------------------------------------------------------------------------- tables
.section .tables, "aw", @progbits
.globl tss
tss:
    .long 0
    .quad ring0_stack_top       # rsp0: interrupts and the gate
    .quad 0, 0, 0
    .quad exception_stack_top   # ist1: exceptions, so that a bad ring-0 stack is reported too
    .quad 0, 0, 0, 0, 0, 0, 0
    .word 0
    .word 0x68
    .fill 8192, 1, 0            # every port is open to ring 3
    .byte 0xff

.balign 8
gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff    # 10 ring-0 code, 64 bit
    .quad 0x00cf93000000ffff    # 18 ring-0 data
    .quad 0x00cffb000000ffff    # 20 ring-3 code, 32 bit
    .quad 0x00cff3000000ffff    # 28 ring-3 data
    .quad 0x00affb000000ffff    # 30 ring-3 code, 64 bit
    .quad 0
    .quad 0x0000890000000000 | ((TSS & 0xffff) << 16) | (((TSS >> 16) & 0xff) << 32) | TSS_LIMIT
    .quad 0                     # 40 TSS
gdt_end:

# One to one, the first 4 GiB, all of it open to ring 3: the image is one protection domain.
# Executable is only the page with the code, and that one is read-only. Above 3 GiB there are only
# devices: no caching.
.balign 4096
pml4:
    .quad page_directory_pointers + 7
    .fill 511, 8, 0
page_directory_pointers:
    .quad page_directories + 0x0007, page_directories + 0x1007
    .quad page_directories + 0x2007, page_directories + 0x3007
    .fill 508, 8, 0
page_directories:
    .set address, 0
    .rept 2048
    .if address == STUBS
    .quad address + 0x85
    .elseif address < 0xc0000000
    .quad 0x8000000000000087 + address
    .else
    .quad 0x800000000000009f + address
    .endif
    .set address, address + 0x200000
    .endr

.globl idt
idt:
    .set vector, 0
    .rept 256
    .set handler, STUBS + vector * STUB_SIZE
    .if vector == 3
    .quad (handler & 0xffff) | (KERNEL_CODE << 16) | (0xee00 << 32) | ((handler >> 16) << 48)
    .elseif vector < 32
    .quad (handler & 0xffff) | (KERNEL_CODE << 16) | (0x8e01 << 32) | ((handler >> 16) << 48)
    .else
    .quad (handler & 0xffff) | (KERNEL_CODE << 16) | (0x8e00 << 32) | ((handler >> 16) << 48)
    .endif
    .quad 0
    .set vector, vector + 1
    .endr

# -------------------------------------------------------------------------- interrupts, exceptions
.section .stubs, "ax", @progbits
.globl interrupt_stubs
interrupt_stubs:
    .set vector, 0
    .rept 256
    .org vector * STUB_SIZE
    .if vector == 3
    jmp gate
    .elseif (vector >= FIRST_IRQ) && (vector < FIRST_IRQ + 8)
    movb $1, irq_pending + vector - FIRST_IRQ
    movabsl %eax, LAPIC_EOI     # which value is written does not matter
    iretq
    .elseif vector == 0xff
    iretq                       # spurious
    .else
    .if (vector != 8) && ((vector < 10) || (vector > 14)) && (vector != 17) && (vector != 21)
    pushq $0                    # the processor pushed no error code
    .endif
    pushq $vector
    jmp exception
    .endif
    .set vector, vector + 1
    .endr
    .org 256 * STUB_SIZE

exception:                      # stack: vector, error code, rip, cs, rflags, rsp, ss
    popq exception_record
    popq exception_record + 8
    pushq %rax
    movq 8(%rsp), %rax
    movq %rax, exception_record + 16
    movq 32(%rsp), %rax
    movq %rax, exception_record + 24
    movq %cr2, %rax
    movq %rax, exception_record + 32
    incq exception_record + 40
    cmpq $1, exception_record + 40
    jne reset                   # the report itself failed
    movq $failure_entry, 8(%rsp)
    movq $USER_CODE, 16(%rsp)
    movq $USER_FLAGS, 24(%rsp)
    movq $failure_stack_top, 32(%rsp)
    movq $USER_DATA, 40(%rsp)
    popq %rax
    iretq

gate:                           # r8: which service
    cmpq $GATE_SERVICES, %r8
    jae stray_breakpoint
    jmpq *gate_services(, %r8, 8)
stray_breakpoint:
    pushq $0
    pushq $3
    jmp exception

halt_if_idle:                   # interrupts are off here; sti takes effect only after hlt began
    cmpq $0, irq_pending
    jne 1f
    sti
    hlt
1:  iretq
read_msr:
    rdmsr
    iretq
write_msr:
    wrmsr
    iretq
read_cpuid:                     # ring 3 may see the real processor's CPUID instead of the VM's
    cpuid
    iretq
reset:                          # no interrupt table: the next exception becomes a triple fault
    lidt no_idt
    ud2

.balign 8
gate_services:
    .quad halt_if_idle, read_msr, write_msr, reset, read_cpuid
no_idt:
    .word 0
    .quad 0

# ---------------------------------------------------------------------------------------- PVH entry
.section .text.pvh_entry, "ax", @progbits
.code32
.globl pvh_entry
pvh_entry:                      # protected mode without paging, ebx: hvm_start_info
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0x620, %eax           # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $0xc0000080, %ecx      # EFER: SCE, LME, NXE
    rdmsr
    orl $0x901, %eax
    wrmsr
    lgdt gdt_pointer
    movl $0x80010033, %eax      # PG, WP, NE, ET, MP, PE
    movl %eax, %cr0
    ljmp $KERNEL_CODE, $1f
.code64
1:  lidt idt_pointer
    movl $TSS_SELECTOR, %eax
    ltr %ax
    movl %ebx, %edi
    movl $ring0_stack_top, %esp
    pushq $USER_DATA
    pushq $user_stack_top
    pushq $USER_FLAGS
    pushq $USER_CODE
    pushq $ring3_entry
    iretq

.globl ring3_entry
ring3_entry:                    # ring 3, edi: hvm_start_info
    xorl %ebp, %ebp
    call libos_start
    ud2

.globl failure_entry
failure_entry:                  # ring 3, on a stack of its own, after an exception
    xorl %ebp, %ebp
    call report_exception
    ud2

.balign 8
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
idt_pointer:
    .word 256 * 16 - 1
    .quad idt

# --------------------------------------------------------------------------------- records, stacks
.section .bss.shim, "aw", @nobits
.balign 8
.globl irq_pending
irq_pending:                    # byte n: vector FIRST_IRQ + n came since ring 3 last cleared it
    .skip 8
.globl exception_record
exception_record:               # vector, error code, rip, rsp, cr2, count
    .skip 48
.balign 4096
    .skip 4096
ring0_stack_top:
    .skip 4096
exception_stack_top:
    .skip 16384
failure_stack_top:              # the stack of ring 3, user_stack_top, is in link.ld
