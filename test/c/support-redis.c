#include "support-redis.h"

#include "harness.h"
#include "support-port.h"

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

enum {
    STARTS_MAX = 5,
    PATIENCE_MS = 10000,
    NODES_MAX = 3,
    REPLICA = 9,
    CLOCKS = REPLICA + 1,
    WORDS_MAX = 40
};

typedef struct node {
    pid_t pid; /* 0: it does not run */
    uint16_t port;
    int fd; /* our own connection */
    FILE *in;
} node;

static struct {
    node nodes[NODES_MAX];
    size_t n_nodes; /* of a cluster or a quorum; 0: it is none, and there is one */
    bool is_cluster;
    pid_t replica;
    node sentinel; /* its pid is 0 unless it is asked through one */
    char folder[64];
    _Atomic uint64_t *clock;
    char *answer;
    size_t answer_len;
} server;

static void give_up(const char *what) {
    perror(what);
    exit(1);
}

static size_t count_nodes(void) {
    return server.n_nodes > 0 ? server.n_nodes : 1;
}

/* ---------------------------------------------------------------- life */

static void end_process(pid_t *pid) {
    if (*pid > 0) {
        kill(*pid, SIGKILL);
        waitpid(*pid, NULL, 0);
    }
    *pid = 0;
}

static void stop(node *n) {
    if (n->in != NULL) fclose(n->in);
    n->in = NULL;
    end_process(&n->pid);
}

static void remove_file(const char *format, size_t number) {
    char path[160];
    int len = snprintf(path, sizeof path, "%s/", server.folder);

    snprintf(path + len, sizeof path - (size_t)len, format, number);
    (void)unlink(path);
}

static void clean_up(void) {
    for (size_t i = 0; i < NODES_MAX; i++) {
        stop(&server.nodes[i]);
        remove_file("dump-%zu.rdb", i);
        remove_file("nodes-%zu.conf", i);
    }
    end_process(&server.replica);
    stop(&server.sentinel);
    remove_file("sentinel.conf", 0);
    free(server.answer);
    remove_file("clock", 0);
    remove_file("log", 0);
    (void)rmdir(server.folder);
}

/* A page that the server shares with us. */
static void make_clock(void) {
    char path[128];
    int fd;
    void *page;

    snprintf(path, sizeof path, "%s/clock", server.folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, CLOCKS * sizeof *server.clock) != 0) give_up(path);
    page = mmap(NULL, CLOCKS * sizeof *server.clock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
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

static const char *program(void) {
    const char *given = getenv("HF_REDIS_SERVER");
    return given != NULL ? given : "redis-server";
}

static void add_word(const char **words, size_t *n, const char *word) {
    if (*n < WORDS_MAX - 1) words[(*n)++] = word;
    words[*n] = NULL;
}

/* `number` names its files. `master`: what it is a replica of; NULL: of nothing. */
static void become_server(size_t number, int port_number, int bus_number, const char *master) {
    char preload[512];
    char port[8];
    char bus[8];
    char log[128];
    char dump[32];
    char conf[32];
    const char *words[WORDS_MAX];
    size_t n = 0;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    find_preload(preload, sizeof preload);
    setenv("LD_PRELOAD", preload, 1);
    snprintf(port, sizeof port, "%zu", number);
    setenv("HF_CLOCK_INDEX", port, 1);
    snprintf(port, sizeof port, "%d", port_number);
    snprintf(bus, sizeof bus, "%d", bus_number);
    snprintf(log, sizeof log, "%s/log", server.folder);
    snprintf(dump, sizeof dump, "dump-%zu.rdb", number);
    snprintf(conf, sizeof conf, "nodes-%zu.conf", number);
    const char *const usual[] = {program(),
                                 "--port",
                                 port,
                                 "--bind",
                                 "127.0.0.1",
                                 "--save",
                                 "",
                                 "--dir",
                                 server.folder,
                                 "--logfile",
                                 log,
                                 "--dbfilename",
                                 dump,
                                 "--repl-diskless-sync-delay",
                                 "0"};
    const char *const cluster[] = {"--cluster-enabled", "yes", "--cluster-config-file", conf,
                                   "--cluster-port",    bus};
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        add_word(words, &n, usual[i]);
    for (size_t i = 0; server.is_cluster && i < sizeof cluster / sizeof cluster[0]; i++)
        add_word(words, &n, cluster[i]);
    if (master != NULL) add_word(words, &n, "--replicaof");
    if (master != NULL) add_word(words, &n, master);
    execvp(program(), (char *const *)(uintptr_t)words);
    _exit(errno == ENOENT ? 127 : 126);
}

/* One that watches the server, and never finds it dead. */
static void become_sentinel(uint16_t port) {
    char path[128];
    FILE *conf;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(path, sizeof path, "%s/sentinel.conf", server.folder);
    conf = fopen(path, "w");
    if (conf == NULL) _exit(126);
    fprintf(conf,
            "port %d\nbind 127.0.0.1\nlogfile %s/log\nsentinel monitor master 127.0.0.1 %d 1\n"
            "sentinel down-after-milliseconds master 3600000\n",
            port, server.folder, server.nodes[0].port);
    fclose(conf);
    execlp(program(), program(), path, "--sentinel", (char *)NULL);
    _exit(errno == ENOENT ? 127 : 126);
}

static bool connect_to(node *n) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(n->port), .sin_addr = {htonl(INADDR_LOOPBACK)}};

    n->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (n->fd < 0) give_up("socket");
    if (connect(n->fd, (struct sockaddr *)&address, sizeof address) == 0) {
        n->in = fdopen(n->fd, "r");
        return n->in != NULL;
    }
    close(n->fd);
    return false;
}

/* False: it has ended again, since another has taken the port. */
static bool start(node *n) {
    const struct timespec pause = {0, 5000000};
    int bus = support_free_port(); /* of a Cluster */
    int status;

    n->pid = fork();
    if (n->pid < 0) give_up("fork");
    if (n->pid == 0 && n == &server.sentinel) become_sentinel(n->port);
    if (n->pid == 0) become_server((size_t)(n - server.nodes), n->port, bus, NULL);
    for (int i = 0; i < PATIENCE_MS / 5; i++) {
        if (waitpid(n->pid, &status, WNOHANG) == n->pid) {
            n->pid = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
                SKIP("there is no redis-server here");
            return false;
        }
        if (connect_to(n)) return true;
        nanosleep(&pause, NULL);
    }
    FAIL("the server does not answer");
    exit(1);
}

static void start_anywhere(node *n) {
    make_folder();
    for (int i = 0; i < STARTS_MAX; i++) {
        n->port = support_free_port();
        if (start(n)) return;
    }
    FAIL("no server could be started: see %s/log", server.folder);
    exit(1);
}

/* Waits until the node's answer has this text in it. */
static void wait_for(size_t number, const char *words, const char *text) {
    const struct timespec pause = {0, 10000000};

    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        if (strstr(redis_do_at(number, words), text) != NULL) return;
        nanosleep(&pause, NULL);
    }
    FAIL("a server does not say \"%s\"", text);
    exit(1);
}

/* The slots in as many parts as there are nodes. */
static void form_cluster(void) {
    size_t n = server.n_nodes;
    char words[96];

    for (size_t i = 0; i < n; i++) {
        snprintf(words, sizeof words, "CLUSTER ADDSLOTSRANGE %zu %zu", 16384 * i / n,
                 16384 * (i + 1) / n - 1);
        CHECK_STR(redis_do_at(i, words), "OK");
        snprintf(words, sizeof words, "CLUSTER SET-CONFIG-EPOCH %zu", i + 1);
        CHECK_STR(redis_do_at(i, words), "OK");
    }
    for (size_t i = 1; i < n; i++) {
        char bus[32];

        snprintf(bus, sizeof bus, "%s", redis_do_at(i, "CONFIG GET cluster-port"));
        snprintf(words, sizeof words, "CLUSTER MEET 127.0.0.1 %d %s", server.nodes[i].port,
                 strchr(bus, '\n') + 1);
        CHECK_STR(redis_do_at(0, words), "OK");
    }
    for (size_t i = 0; i < n; i++)
        wait_for(i, "CLUSTER INFO", "cluster_state:ok");
    for (size_t i = 0; i < n; i++) {
        snprintf(words, sizeof words, "cluster_size:%zu", n);
        wait_for(i, "CLUSTER INFO", words);
    }
}

void redis_as_cluster(size_t nodes) {
    if (server.n_nodes > 0) return;
    server.n_nodes = nodes;
    server.is_cluster = true;
    for (size_t i = 0; i < nodes; i++)
        start_anywhere(&server.nodes[i]);
    form_cluster();
}

void redis_as_quorum(size_t nodes) {
    if (server.n_nodes > 0) return;
    server.n_nodes = nodes;
    for (size_t i = 0; i < nodes; i++)
        start_anywhere(&server.nodes[i]);
}

void redis_through_sentinel(void) {
    (void)redis_port();
    if (server.sentinel.pid == 0) start_anywhere(&server.sentinel);
}

uint16_t redis_port(void) {
    if (server.nodes[0].pid == 0) start_anywhere(&server.nodes[0]);
    return server.nodes[0].port;
}

static void name_quorum(char *url, size_t size) {
    size_t len = (size_t)snprintf(url, size, "quorum:?fencing=true&maxTtl=86400000");

    for (size_t i = 0; i < server.n_nodes; i++)
        len +=
            (size_t)snprintf(url + len, size - len, " redis://127.0.0.1:%d", server.nodes[i].port);
}

void redis_fresh(char *url, size_t size) {
    const char *scheme = server.is_cluster ? "redis+cluster" : "redis";

    snprintf(url, size, "%s://127.0.0.1:%d", scheme, redis_port());
    if (server.n_nodes > 0 && !server.is_cluster) name_quorum(url, size);
    if (server.sentinel.pid != 0)
        snprintf(url, size, "redis+sentinel://127.0.0.1:%d/master", server.sentinel.port);
    for (size_t i = 0; i < count_nodes(); i++)
        CHECK_STR(redis_do_at(i, "FLUSHALL"), "OK");
}

void redis_restart(bool with_data) {
    if (with_data)
        CHECK_REDIS("SAVE", "OK");
    else
        remove_file("dump-%zu.rdb", 0);
    stop(&server.nodes[0]);
    if (start(&server.nodes[0])) return;
    FAIL("the server does not start again");
    exit(1);
}

void redis_freeze(bool frozen) {
    kill(server.nodes[0].pid, frozen ? SIGSTOP : SIGCONT);
}

void redis_replica(bool on) {
    int port = support_free_port();
    char master[32];

    end_process(&server.replica);
    if (!on) return;
    redis_set_clock(0);
    snprintf(master, sizeof master, "127.0.0.1 %d", redis_port());
    server.replica = fork();
    if (server.replica < 0) give_up("fork");
    if (server.replica == 0) become_server(REPLICA, port, 0, master);
    wait_for(0, "INFO replication", "state=online");
}

void redis_set_clock(uint64_t real_us) {
    (void)redis_port();
    for (size_t i = 0; i < CLOCKS; i++)
        redis_set_clock_at(i, real_us);
}

void redis_set_clock_at(size_t number, uint64_t real_us) {
    atomic_store(&server.clock[number], real_us);
}

/* ---------------------------------------------------------------- commands */

/* At once: in pieces, each would wait for the one before to be acknowledged. */
static void send_all(const node *n, const char *data, size_t len) {
    while (len > 0) {
        ssize_t sent = send(n->fd, data, len, MSG_NOSIGNAL);
        if (sent <= 0) give_up("the server");
        data += sent;
        len -= (size_t)sent;
    }
}

static void read_text(FILE *in, FILE *to, long len) {
    for (long i = 0; i < len; i++)
        putc(getc(in), to);
    (void)getc(in);
    (void)getc(in);
}

static void read_answer(FILE *in, FILE *to) {
    char line[512];
    long n;

    if (fgets(line, sizeof line, in) == NULL) give_up("the server");
    line[strcspn(line, "\r")] = '\0';
    n = strtol(line + 1, NULL, 10);
    switch (line[0]) {
    case '$':
        if (n < 0)
            fputs("(nil)", to);
        else
            read_text(in, to, n);
        break;
    case '*':
        for (long i = 0; i < n; i++) {
            if (i > 0) putc('\n', to);
            read_answer(in, to);
        }
        break;
    case '-': fprintf(to, "(error) %s", line + 1); break;
    default: fputs(line + 1, to); break;
    }
}

static const char *command_at(size_t number, const hf_slice *words, size_t n) {
    const node *at = &server.nodes[number];
    char *command = NULL;
    size_t len = 0;
    FILE *to;

    if (number == 0) (void)redis_port();
    to = open_memstream(&command, &len);
    if (to == NULL) give_up("open_memstream");
    fprintf(to, "*%zu\r\n", n);
    for (size_t i = 0; i < n; i++) {
        fprintf(to, "$%zu\r\n", words[i].len);
        fwrite(words[i].data, 1, words[i].len, to);
        fputs("\r\n", to);
    }
    fclose(to);
    send_all(at, command, len);
    free(command);
    free(server.answer);
    to = open_memstream(&server.answer, &server.answer_len);
    if (to == NULL) give_up("open_memstream");
    read_answer(at->in, to);
    fclose(to);
    return server.answer;
}

const char *redis_command(const hf_slice *words, size_t n) {
    return command_at(0, words, n);
}

const char *redis_do_at(size_t number, const char *text) {
    hf_slice words[16];
    size_t n = 0;

    while (*text != '\0' && n < 16) {
        size_t len = strcspn(text, " ");
        words[n++] = (hf_slice){text, len};
        text += len;
        text += strspn(text, " ");
    }
    return command_at(number, words, n);
}

const char *redis_do(const char *words) {
    return redis_do_at(0, words);
}

long redis_count(const char *command) {
    char line[64];
    const char *at = redis_do("INFO commandstats");

    snprintf(line, sizeof line, "cmdstat_%s:calls=", command);
    at = strstr(at, line);
    return at == NULL ? 0 : strtol(at + strlen(line), NULL, 10);
}
