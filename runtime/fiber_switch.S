/*
 * The register switch: saves what the ABI says a call preserves, swaps stacks, and jumps to where
 * the other side left. The jump is indirect and not a `ret`: the return predictor would expect the
 * caller of this side.
 *
 * A saved stack, from `sp` upward:  x86-64: r15 r14 r13 r12 rbx rbp rip
 *                                   aarch64: x19..x28 x29 x30 d8..d15
 * Not saved: floating-point control words, which the fibers of a core share.
 */
#if defined(__x86_64__)

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

/* The first frame of a fiber: calls rbx(r12). Unwinding ends here. */
    .globl shoal_fiber_first_frame
    .hidden shoal_fiber_first_frame
    .type shoal_fiber_first_frame, @function
    .p2align 4
shoal_fiber_first_frame:
    .cfi_startproc
    .cfi_undefined %rip
    movq %r12, %rdi
    callq *%rbx
    ud2
    .cfi_endproc
    .size shoal_fiber_first_frame, . - shoal_fiber_first_frame

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
    .cfi_rel_offset x29, 80
    .cfi_rel_offset x30, 88
    stp d8, d9, [sp, #96]
    stp d10, d11, [sp, #112]
    stp d12, d13, [sp, #128]
    stp d14, d15, [sp, #144]
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
    add sp, sp, #160
    .cfi_adjust_cfa_offset -160
    .cfi_restore x29
    .cfi_restore x30
    br x30
    .cfi_endproc
    .size shoal_fiber_switch, . - shoal_fiber_switch

/* The first frame of a fiber: calls x19(x20). Unwinding ends here. */
    .globl shoal_fiber_first_frame
    .hidden shoal_fiber_first_frame
    .type shoal_fiber_first_frame, %function
    .p2align 4
shoal_fiber_first_frame:
    .cfi_startproc
    .cfi_undefined x30
    mov x0, x20
    blr x19
    brk #1
    .cfi_endproc
    .size shoal_fiber_first_frame, . - shoal_fiber_first_frame

#endif

#if defined(__linux__) && defined(__ELF__)
    .section .note.GNU-stack, "", %progbits
#endif
