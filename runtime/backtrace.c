/*
 * Symbolised backtraces without malloc and stdio.
 *
 * 1. Frames come from glibc's backtrace(), which walks .eh_frame: no frame pointers are needed.
 * 2. Names come from the module's own symbol table (.symtab), read from its file with pread, since
 *    dladdr knows exported functions only and nearly all of ours are static or hidden. A stripped
 *    module falls back on dladdr, and in the end on the bare offset.
 * 3. The file is used only if its ELF header equals the one in memory: a library that was replaced
 *    on disk while it ran must not lend its names. pread instead of mmap for the same reason: a
 *    file truncated meanwhile is a short read and not a SIGBUS.
 * 4. A line is one write(2), so that other threads' log lines come between frames, not inside.
 * 5. A return address points behind its call, which may be the first byte of the next function:
 *    names are looked up one byte earlier.
 *
 * dladdr takes the loader's lock. It is recursive, so a handler that interrupts dlopen on its own
 * thread does not hang.
 *
 * Rejected: backtrace_symbols_fd, which gives no names for static functions; libunwind and
 * libbacktrace, a dependency each for what takes a page here.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <dlfcn.h>
#include <elf.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "shoal/runtime/backtrace_impl.h"

enum {
    FRAMES_MAX = 64,
    SYMBOLS_AT_ONCE = 32,
    SECTIONS_MAX = 512,
    SYMBOLS_MAX = 4 * 1024 * 1024,
    NAME_BYTES_MAX = 128,
    LINE_BYTES_MAX = 320,
};

struct line {
    size_t length;
    char text[LINE_BYTES_MAX];
};

/* What a symbol table says of an address. */
struct symbol {
    bool found;
    uint64_t offset; /* of the address in the function */
    char name[NAME_BYTES_MAX];
};

static void line_text(struct line *line, const char *text)
{
    while (*text != 0 && line->length < sizeof(line->text) - 1) {
        unsigned char c = (unsigned char)*text++;
        line->text[line->length++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
}

static void line_number(struct line *line, uint64_t value, unsigned base)
{
    char digits[21];
    size_t at = sizeof(digits) - 1;
    digits[at] = 0;
    do {
        digits[--at] = "0123456789abcdef"[value % base];
        value /= base;
    } while (value != 0);
    line_text(line, digits + at);
}

static bool read_at(int fd, void *out, size_t size, uint64_t offset)
{
    ssize_t got;
    do {
        got = pread(fd, out, size, (off_t)offset);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)size;
}

/* Finds the section header of the symbol table and the one of its names. */
static bool find_symbol_table(int fd, const ElfW(Ehdr) * header, ElfW(Shdr) * symbols,
                              ElfW(Shdr) * names)
{
    if (header->e_shentsize != sizeof(ElfW(Shdr)) || header->e_shnum > SECTIONS_MAX)
        return false;
    for (unsigned i = 0; i < header->e_shnum; i++) {
        if (!read_at(fd, symbols, sizeof(*symbols), header->e_shoff + i * sizeof(*symbols)))
            return false;
        if (symbols->sh_type != SHT_SYMTAB)
            continue;
        return symbols->sh_entsize == sizeof(ElfW(Sym)) && symbols->sh_link < header->e_shnum &&
               read_at(fd, names, sizeof(*names),
                       header->e_shoff + symbols->sh_link * sizeof(*names));
    }
    return false;
}

/* Whether `symbol` is a function that covers `address` (as linked). */
static bool covers(const ElfW(Sym) * symbol, uint64_t address)
{
    if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || symbol->st_shndx == SHN_UNDEF)
        return false;
    uint64_t size = symbol->st_size != 0 ? symbol->st_size : 1;
    return address >= symbol->st_value && address - symbol->st_value < size;
}

/* Looks `address` up in the symbol table of the file `fd`. */
static void search_symbols(int fd, const ElfW(Ehdr) * header, uint64_t address, struct symbol *out)
{
    ElfW(Shdr) symbols, names;
    if (!find_symbol_table(fd, header, &symbols, &names))
        return;
    uint64_t count = symbols.sh_size / sizeof(ElfW(Sym));
    if (count > SYMBOLS_MAX)
        return;
    ElfW(Sym) chunk[SYMBOLS_AT_ONCE];
    for (uint64_t at = 0; at < count; at += SYMBOLS_AT_ONCE) {
        size_t here = count - at < SYMBOLS_AT_ONCE ? (size_t)(count - at) : SYMBOLS_AT_ONCE;
        if (!read_at(fd, chunk, here * sizeof(chunk[0]), symbols.sh_offset + at * sizeof(chunk[0])))
            return;
        for (size_t i = 0; i < here; i++) {
            if (!covers(&chunk[i], address) || chunk[i].st_name >= names.sh_size)
                continue;
            uint64_t left = names.sh_size - chunk[i].st_name;
            size_t size = left < NAME_BYTES_MAX ? (size_t)left : NAME_BYTES_MAX;
            if (!read_at(fd, out->name, size, names.sh_offset + chunk[i].st_name))
                return;
            out->name[size - 1] = 0;
            out->offset = address - chunk[i].st_value;
            out->found = out->name[0] != 0;
            return;
        }
    }
}

/* Looks `address` (as linked) up in the file of its module. */
static void look_up_in_file(const Dl_info *module, const char *path, uint64_t address,
                            struct symbol *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ElfW(Ehdr) header;
    if (read_at(fd, &header, sizeof(header), 0) && memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 &&
        memcmp(&header, module->dli_fbase, sizeof(header)) == 0) {
        search_symbols(fd, &header, address, out);
    }
    close(fd);
}

/* Where this module's ELF header lies; set by the linker. */
extern const ElfW(Ehdr) __ehdr_start /* NOLINT(bugprone-reserved-identifier): the linker's name */
    __attribute__((visibility("hidden")));

/*
 * The module of `pc` in a static program, of which the loader, and so dladdr, knows nothing: there
 * is only one, and this code is in it.
 */
static bool find_static_program(uintptr_t pc, Dl_info *module, uintptr_t *bias)
{
    const char *base = (const char *)&__ehdr_start;
    const ElfW(Phdr) *headers = (const void *)(base + __ehdr_start.e_phoff);
    if (getauxval(AT_PHDR) != (uintptr_t)headers)
        return false;
    bool found = false;
    for (unsigned i = 0; i < __ehdr_start.e_phnum; i++)
        if (headers[i].p_type == PT_LOAD && headers[i].p_offset == 0)
            *bias = (uintptr_t)base - headers[i].p_vaddr;
    for (unsigned i = 0; i < __ehdr_start.e_phnum; i++)
        found |=
            headers[i].p_type == PT_LOAD && pc - *bias - headers[i].p_vaddr < headers[i].p_memsz;
    *module = (Dl_info){.dli_fname = program_invocation_short_name, .dli_fbase = (void *)base};
    return found;
}

static bool find_module(uintptr_t pc, Dl_info *module, uintptr_t *bias)
{
    struct link_map *map = NULL;
    if (dladdr1((void *)pc, module, (void **)&map, RTLD_DL_LINKMAP) == 0 || map == NULL)
        return find_static_program(pc, module, bias);
    *bias = map->l_addr;
    return true;
}

static void describe(struct line *line, uintptr_t pc)
{
    uintptr_t inside = pc > 0 ? pc - 1 : pc;
    Dl_info module;
    uintptr_t bias = 0;
    if (!find_module(inside, &module, &bias)) {
        line_text(line, "0x");
        line_number(line, pc, 16);
        return;
    }
    const char *path = module.dli_fname != NULL ? module.dli_fname : "?";
    const char *slash = strrchr(path, '/');
    line_text(line, slash != NULL ? slash + 1 : path);
    line_text(line, "(+0x");
    line_number(line, pc - bias, 16);
    line_text(line, ")");

    struct symbol symbol = {.found = false};
    look_up_in_file(&module, path, inside - bias, &symbol);
    if (!symbol.found) /* the program itself: its name may be relative, or its file replaced */
        look_up_in_file(&module, "/proc/self/exe", inside - bias, &symbol);
    const char *name = symbol.found ? symbol.name : module.dli_sname;
    if (name == NULL)
        return;
    uint64_t offset = symbol.found ? symbol.offset : inside - (uintptr_t)module.dli_saddr;
    line_text(line, " ");
    line_text(line, name);
    line_text(line, "+0x");
    line_number(line, offset + (pc - inside), 16);
}

size_t shoal_backtrace_describe(const void *pc, char *out, size_t size)
{
    int saved_errno = errno;
    struct line line = {.length = 0};
    describe(&line, (uintptr_t)pc);
    size_t length = line.length < size ? line.length : size - 1;
    memcpy(out, line.text, length);
    out[length] = 0;
    errno = saved_errno;
    return length;
}

static void write_line(int fd, struct line *line)
{
    line->text[line->length++] = '\n'; /* line_text leaves room for it */
    const char *at = line->text;
    while (line->length > 0) {
        ssize_t written = write(fd, at, line->length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        at += written;
        line->length -= (size_t)written;
    }
}

void shoal_backtrace_init(void)
{
    void *frames[2];
    (void)backtrace(frames, 2);
    Dl_info info;
    (void)dladdr(frames[0], &info); /* binds the symbol, should binding be lazy */
}

/*
 * Index of the frame that returns to `caller`. Frames before it are shoal_backtrace_write and,
 * where a sanitizer stands between, its own backtrace().
 */
static unsigned find_caller(void *const *frames, int count, const void *caller)
{
    for (int i = 0; i < count; i++)
        if (frames[i] == caller)
            return (unsigned)i;
    return 1;
}

unsigned shoal_backtrace_collect(void **frames, unsigned max, const void *after)
{
    void *found[FRAMES_MAX];
    int count = backtrace(found, FRAMES_MAX);
    int first = 0;
    while (first < count && found[first] != after)
        first++;
    unsigned kept = 0;
    for (int i = first + 1; i < count && kept < max; i++)
        frames[kept++] = found[i];
    return kept;
}

__attribute__((noinline)) void shoal_backtrace_write(int fd, unsigned skip)
{
    int saved_errno = errno;
    void *frames[FRAMES_MAX];
    int count = backtrace(frames, FRAMES_MAX);
    unsigned first = find_caller(frames, count, __builtin_return_address(0)) + skip;
    for (unsigned i = first; i < (unsigned)count; i++) {
        struct line line = {.length = 0};
        line_text(&line, "    #");
        line_number(&line, i - first, 10);
        line_text(&line, "  ");
        describe(&line, (uintptr_t)frames[i]);
        write_line(fd, &line);
    }
    if (count <= 0 || first >= (unsigned)count) {
        struct line line = {.length = 0};
        line_text(&line, "    (no frames)");
        write_line(fd, &line);
    }
    errno = saved_errno;
}
