#include "support-redis.h"

#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STARTS_MAX = 5, PATIENCE_MS = 10000 };

static struct {
    pid_t pid; /* 0: it does not run */
    pid_t replica;
    uint16_t port;
    int fd; /* our own connection */
    FILE *in;
    char folder[64];
    _Atomic uint64_t *clock;
    char *answer;
    size_t answer_len;
} server;

static void give_up(const char *what) {
    perror(what);
    exit(1);
}

/* ---------------------------------------------------------------- life */

static void end_process(pid_t *pid) {
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static void stop(void) {
    if (server.in != NULL) fclose(server.in);
    server.in = NULL;
    end_process(&server.pid);
}

static void remove_file(const char *name) {
    char path[128];

    snprintf(path, sizeof path, "%s/%s", server.folder, name);
    (void)unlink(path);
}

static void clean_up(void) {
    stop();
    end_process(&server.replica);
    free(server.answer);
    remove_file("clock");
    remove_file("log");
    remove_file("dump.rdb");
    (void)rmdir(server.folder);
}

/* A page that the server shares with us. */
static void make_clock(void) {
    char path[128];
    int fd;
    void *page;

    snprintf(path, sizeof path, "%s/clock", server.folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *server.clock) != 0) give_up(path);
    page = mmap(NULL, sizeof *server.clock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) give_up("mmap");
    server.clock = page;
    close(fd);
    setenv("HF_CLOCK_FILE", path, 1);
}

static void make_folder(void) {
    const char *base = getenv("TMPDIR");

    if (server.folder[0] != '\0') return;
    snprintf(server.folder, sizeof server.folder, "%s/hf-redis-XXXXXX",
             base != NULL && strlen(base) < 32 ? base : "/tmp");
    if (mkdtemp(server.folder) == NULL) give_up(server.folder);
    atexit(clean_up);
    make_clock();
}

/* The library lies beside the program. */
static void find_preload(char *path, size_t size) {
    ssize_t len = readlink("/proc/self/exe", path, size - 1);
    char *slash;

    if (len < 0) give_up("/proc/self/exe");
    path[len] = '\0';
    slash = strrchr(path, '/');
    snprintf(slash, size - (size_t)(slash - path), "/preload-clock.so");
}

static uint16_t free_port(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&address, len) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0)
        give_up("a free port");
    close(fd);
    return ntohs(address.sin_port);
}

static const char *program(void) {
    const char *given = getenv("HF_REDIS_SERVER");
    return given != NULL ? given : "redis-server";
}

/* `master`: what it is a replica of; NULL: of nothing. */
static void become_server(int port_number, const char *master) {
    char preload[512];
    char port[8];
    char log[128];

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    find_preload(preload, sizeof preload);
    setenv("LD_PRELOAD", preload, 1);
    snprintf(port, sizeof port, "%d", port_number);
    snprintf(log, sizeof log, "%s/log", server.folder);
    execlp(program(), program(), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir",
           server.folder, "--logfile", log, "--repl-diskless-sync-delay", "0",
           master == NULL ? (char *)NULL : "--replicaof", master, (char *)NULL);
    _exit(errno == ENOENT ? 127 : 126);
}

static bool connect_to(void) {
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(server.port),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};

    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server.fd < 0) give_up("socket");
    if (connect(server.fd, (struct sockaddr *)&address, sizeof address) == 0) {
        server.in = fdopen(server.fd, "r");
        return server.in != NULL;
    }
    close(server.fd);
    return false;
}

/* False: it has ended again, since another has taken the port. */
static bool start(void) {
    const struct timespec pause = {0, 5000000};
    int status;

    server.pid = fork();
    if (server.pid < 0) give_up("fork");
    if (server.pid == 0) become_server(server.port, NULL);
    for (int i = 0; i < PATIENCE_MS / 5; i++) {
        if (waitpid(server.pid, &status, WNOHANG) == server.pid) {
            server.pid = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
                SKIP("there is no redis-server here");
            return false;
        }
        if (connect_to()) return true;
        nanosleep(&pause, NULL);
    }
    FAIL("the server does not answer");
    exit(1);
}

static void start_anywhere(void) {
    make_folder();
    for (int i = 0; i < STARTS_MAX; i++) {
        server.port = free_port();
        if (start()) return;
    }
    FAIL("no server could be started: see %s/log", server.folder);
    exit(1);
}

uint16_t redis_port(void) {
    if (server.pid == 0) start_anywhere();
    return server.port;
}

void redis_fresh(char *url, size_t size) {
    snprintf(url, size, "redis://127.0.0.1:%d", redis_port());
    CHECK_STR(redis_do("FLUSHALL"), "OK");
}

void redis_restart(bool with_data) {
    if (with_data)
        CHECK_REDIS("SAVE", "OK");
    else
        remove_file("dump.rdb");
    stop();
    if (start()) return;
    FAIL("the server does not start again");
    exit(1);
}

void redis_freeze(bool frozen) {
    kill(server.pid, frozen ? SIGSTOP : SIGCONT);
}

void redis_replica(bool on) {
    const struct timespec pause = {0, 10000000};
    int port = free_port();
    char master[32];

    end_process(&server.replica);
    if (!on) return;
    redis_set_clock(0);
    snprintf(master, sizeof master, "127.0.0.1 %d", server.port);
    server.replica = fork();
    if (server.replica < 0) give_up("fork");
    if (server.replica == 0) become_server(port, master);
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        if (strstr(redis_do("INFO replication"), "state=online") != NULL) return;
        nanosleep(&pause, NULL);
    }
    FAIL("the replica does not follow");
}

void redis_set_clock(uint64_t real_us) {
    (void)redis_port();
    atomic_store(server.clock, real_us);
}

/* ---------------------------------------------------------------- commands */

/* At once: in pieces, each would wait for the one before to be acknowledged. */
static void send_all(const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = send(server.fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) give_up("the server");
        data += n;
        len -= (size_t)n;
    }
}

static void read_answer(FILE *to);

static void read_text(FILE *to, long len) {
    for (long i = 0; i < len; i++)
        putc(getc(server.in), to);
    (void)getc(server.in);
    (void)getc(server.in);
}

static void read_answer(FILE *to) {
    char line[512];
    long n;

    if (fgets(line, sizeof line, server.in) == NULL) give_up("the server");
    line[strcspn(line, "\r")] = '\0';
    n = strtol(line + 1, NULL, 10);
    switch (line[0]) {
    case '$':
        if (n < 0)
            fputs("(nil)", to);
        else
            read_text(to, n);
        break;
    case '*':
        for (long i = 0; i < n; i++) {
            if (i > 0) putc('\n', to);
            read_answer(to);
        }
        break;
    case '-': fprintf(to, "(error) %s", line + 1); break;
    default: fputs(line + 1, to); break;
    }
}

const char *redis_command(const hf_slice *words, size_t n) {
    char *command = NULL;
    size_t len = 0;
    FILE *to;

    (void)redis_port();
    to = open_memstream(&command, &len);
    if (to == NULL) give_up("open_memstream");
    fprintf(to, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        fprintf(to, "$%zu\r\n", words[i].len);
        fwrite(words[i].data, 1, words[i].len, to);
        fputs("\r\n", to);
    }
    fclose(to);
    send_all(command, len);
    free(command);
    free(server.answer);
    to = open_memstream(&server.answer, &server.answer_len);
    if (to == NULL) give_up("open_memstream");
    read_answer(to);
    fclose(to);
    return server.answer;
}

const char *redis_do(const char *text) {
    hf_slice words[16];
    size_t n = 0;

    while (*text != '\0' && n < 16) {
        size_t len = strcspn(text, " ");
        words[n++] = (hf_slice){text, len};
        text += len;
        text += strspn(text, " ");
    }
    return redis_command(words, n);
}

long redis_count(const char *command) {
    char line[64];
    const char *at = redis_do("INFO commandstats");

    snprintf(line, sizeof line, "cmdstat_%s:calls=", command);
    at = strstr(at, line);
    return at == NULL ? 0 : strtol(at + strlen(line), NULL, 10);
}
