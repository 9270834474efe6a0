/*
 * The register switch: saves what the ABI says a call preserves, swaps stacks, and jumps to where
 * the other side left. The jump is indirect and not a `ret`: the return predictor would expect the
 * caller of this side.
 *
 * A saved stack, from `sp` upward:  x86-64: r15 r14 r13 r12 rbx rbp rip
 *                                   aarch64: x19..x28 x29 x30 d8..d15
 * Not saved: floating-point control words, which the fibers of a core share.
 *
 * 1. The unwind information is right at each instruction: both stacks look the same at the moment
 *    of the swap, so that what describes one side describes the other.
 * 2. Unwinding ends at shoal_fiber_first_frame, whose return address is undefined. A new fiber
 *    begins at shoal_fiber_first_pc, one instruction behind the start: an unwinder looks a return
 *    address up one byte earlier, which would be in the function before.
 * 3. shoal_fiber_visit(sp, fn, arg) calls fn(arg) on the stack that it is called on, but its unwind
 *    information tells that its caller is the parked fiber whose context lies at `sp`. An unwinder
 *    that is started in `fn` walks the fiber's stack, of which not a byte is written, and whose
 *    frames need no frame pointers. Tools read this file's layout too: tools/gdb/shoal.py.
 *
 * SHOAL_FIBER_UCONTEXT leaves all this out, for fiber_context.c to do it by other means.
 */
#if defined(SHOAL_FIBER_UCONTEXT)

#elif defined(__x86_64__)

    .text
    .globl shoal_fiber_switch
    .hidden shoal_fiber_switch
    .type shoal_fiber_switch, @function
    .p2align 4
shoal_fiber_switch:
    .cfi_startproc
    pushq %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbp, 0
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    pushq %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r12, 0
    pushq %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r13, 0
    pushq %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r14, 0
    pushq %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %r15, 0
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r15
    popq %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r14
    popq %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r13
    popq %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore %r12
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    popq %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbp
    popq %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rcx
    jmpq *%rcx
    .cfi_endproc
    .size shoal_fiber_switch, . - shoal_fiber_switch

/* The first frame of a fiber: calls rbx(r12). */
    .globl shoal_fiber_first_frame
    .hidden shoal_fiber_first_frame
    .globl shoal_fiber_first_pc
    .hidden shoal_fiber_first_pc
    .type shoal_fiber_first_frame, @function
    .p2align 4
shoal_fiber_first_frame:
    .cfi_startproc
    .cfi_undefined %rip
    nop
shoal_fiber_first_pc:
    movq %r12, %rdi
    callq *%rbx
    ud2
    .cfi_endproc
    .size shoal_fiber_first_frame, . - shoal_fiber_first_frame

    .globl shoal_fiber_visit
    .hidden shoal_fiber_visit
    .globl shoal_fiber_visit_return
    .hidden shoal_fiber_visit_return
    .type shoal_fiber_visit, @function
    .p2align 4
shoal_fiber_visit:
    .cfi_startproc
    pushq %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset %rbx, 0
    movq %rdi, %rbx
    movq %rdx, %rdi
    .cfi_remember_state
    .cfi_def_cfa %rbx, 56
    .cfi_offset %r15, -56
    .cfi_offset %r14, -48
    .cfi_offset %r13, -40
    .cfi_offset %r12, -32
    .cfi_offset %rbx, -24
    .cfi_offset %rbp, -16
    .cfi_offset %rip, -8
    callq *%rsi
shoal_fiber_visit_return:
    nop /* so that the address behind the call still has the state of the call */
    .cfi_restore_state
    popq %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore %rbx
    ret
    .cfi_endproc
    .size shoal_fiber_visit, . - shoal_fiber_visit

#elif defined(__aarch64__)

    .text
    .globl shoal_fiber_switch
    .hidden shoal_fiber_switch
    .type shoal_fiber_switch, %function
    .p2align 4
shoal_fiber_switch:
    .cfi_startproc
    sub sp, sp, #160
    .cfi_adjust_cfa_offset 160
    stp x19, x20, [sp, #0]
    stp x21, x22, [sp, #16]
    stp x23, x24, [sp, #32]
    stp x25, x26, [sp, #48]
    stp x27, x28, [sp, #64]
    stp x29, x30, [sp, #80]
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
    /* All at once: until here each register still has its value as well. */
    .cfi_rel_offset x19, 0
    .cfi_rel_offset x20, 8
    .cfi_rel_offset x21, 16
    .cfi_rel_offset x22, 24
    .cfi_rel_offset x23, 32
    .cfi_rel_offset x24, 40
    .cfi_rel_offset x25, 48
    .cfi_rel_offset x26, 56
    .cfi_rel_offset x27, 64
    .cfi_rel_offset x28, 72
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    .cfi_rel_offset d8, 96
    .cfi_rel_offset d9, 104
    .cfi_rel_offset d10, 112
    .cfi_rel_offset d11, 120
    .cfi_rel_offset d12, 128
    .cfi_rel_offset d13, 136
    .cfi_rel_offset d14, 144
    .cfi_rel_offset d15, 152
    mov x9, sp
    str x9, [x0]
    mov sp, x1
    ldp x19, x20, [sp, #0]
    ldp x21, x22, [sp, #16]
    ldp x23, x24, [sp, #32]
    ldp x25, x26, [sp, #48]
    ldp x27, x28, [sp, #64]
    ldp x29, x30, [sp, #80]
    ldp d8, d9, [sp, #96]
    ldp d10, d11, [sp, #112]
    ldp d12, d13, [sp, #128]
    ldp d14, d15, [sp, #144]
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore x29
    .cfi_restore x30
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
    add sp, sp, #160
    .cfi_adjust_cfa_offset -160
    br x30
    .cfi_endproc
    .size shoal_fiber_switch, . - shoal_fiber_switch

/* The first frame of a fiber: calls x19(x20). */
    .globl shoal_fiber_first_frame
    .hidden shoal_fiber_first_frame
    .globl shoal_fiber_first_pc
    .hidden shoal_fiber_first_pc
    .type shoal_fiber_first_frame, %function
    .p2align 4
shoal_fiber_first_frame:
    .cfi_startproc
    .cfi_undefined x30
    nop
shoal_fiber_first_pc:
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    .size shoal_fiber_first_frame, . - shoal_fiber_first_frame

    .globl shoal_fiber_visit
    .hidden shoal_fiber_visit
    .globl shoal_fiber_visit_return
    .hidden shoal_fiber_visit_return
    .type shoal_fiber_visit, %function
    .p2align 4
shoal_fiber_visit:
    .cfi_startproc
    stp x29, x30, [sp, #-32]!
    .cfi_adjust_cfa_offset 32
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    str x19, [sp, #16]
    .cfi_rel_offset x19, 16
    mov x19, x0
    mov x0, x2
    .cfi_remember_state
    .cfi_def_cfa x19, 160
    .cfi_offset x19, -160
    .cfi_offset x20, -152
    .cfi_offset x21, -144
    .cfi_offset x22, -136
    .cfi_offset x23, -128
    .cfi_offset x24, -120
    .cfi_offset x25, -112
    .cfi_offset x26, -104
    .cfi_offset x27, -96
    .cfi_offset x28, -88
    .cfi_offset x29, -80
    .cfi_offset x30, -72
    .cfi_offset d8, -64
    .cfi_offset d9, -56
    .cfi_offset d10, -48
    .cfi_offset d11, -40
    .cfi_offset d12, -32
    .cfi_offset d13, -24
    .cfi_offset d14, -16
    .cfi_offset d15, -8
    blr x1
shoal_fiber_visit_return:
    nop /* so that the address behind the call still has the state of the call */
    .cfi_restore_state
    ldr x19, [sp, #16]
    .cfi_restore x19
    ldp x29, x30, [sp], #32
    .cfi_restore x29
    .cfi_restore x30
    .cfi_adjust_cfa_offset -32
    ret
    .cfi_endproc
    .size shoal_fiber_visit, . - shoal_fiber_visit

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
