#include "support-postgres.h"

#include "harness.h"
#include "support-port.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <inttypes.h>
#include <libpq-fe.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STARTS_MAX = 5, PATIENCE_MS = 30000 };

static struct {
    pid_t pid; /* 0: it does not run */
    uint16_t port;
    pid_t pooler; /* 0: it is asked straight */
    uint16_t pooler_port;
    char folder[64];
    char programs[640];
    _Atomic uint64_t *clock;
    uid_t uid; /* that it runs as: it refuses to be root */
    gid_t gid;
    PGconn *conn;
    char answer[256];
} server;

static void give_up(const char *what) {
    perror(what);
    exit(1);
}

/* It may have to pass through folders that are root's alone: to what it loads, or to TMPDIR. */
static void keep_reach(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};

    data[0].effective = data[0].permitted = data[0].inheritable = 1U << CAP_DAC_OVERRIDE;
    if (syscall(SYS_capset, &header, data) == 0)
        (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_OVERRIDE, 0, 0);
}

static void become_user(void) {
    if (getuid() != 0) return;
    /* Without this the change takes all away, and access() counts nothing of it. */
    (void)prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP);
    if (setgid(server.gid) != 0 || setuid(server.uid) != 0) _exit(126);
    keep_reach();
}

/* Runs a program to its end, as the server's user; true if all went well. */
static bool run(const char *const *words) {
    int status;
    pid_t pid = fork();

    if (pid < 0) give_up("fork");
    if (pid == 0) {
        int null = open("/dev/null", O_WRONLY);

        become_user();
        (void)dup2(null, STDOUT_FILENO);
        (void)dup2(null, STDERR_FILENO);
        execvp(words[0], (char *const *)(uintptr_t)words);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#define RUN(...) run((const char *const[]){__VA_ARGS__, NULL})

/* ---------------------------------------------------------------- life */

/* SIGQUIT ends it at once, and all its processes. */
static void stop(int signal) {
    if (server.conn != NULL) PQfinish(server.conn);
    server.conn = NULL;
    if (server.pid == 0) return;
    kill(server.pid, signal);
    waitpid(server.pid, NULL, 0);
    server.pid = 0;
}

static void stop_pooler(void) {
    if (server.pooler == 0) return;
    kill(server.pooler, SIGKILL);
    waitpid(server.pooler, NULL, 0);
    server.pooler = 0;
}

static void clean_up(void) {
    stop_pooler();
    stop(SIGQUIT);
    (void)RUN("rm", "-rf", server.folder);
}

/* The folder in which script/servers unpacks, beside the one of this program's. */
static const char *find_built(void) {
    static char path[512];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - sizeof "/build-servers");

    if (len < 0) give_up("/proc/self/exe");
    path[len] = '\0';
    for (int up = 0; up < 3; up++) {
        char *slash = strrchr(path, '/');
        if (slash != NULL) *slash = '\0';
    }
    strcat(path, "/build-servers");
    return path;
}

/* The last of the files of that pattern, in order of their names; false: there is none. */
static bool find_last(const char *pattern, char *path, size_t size) {
    glob_t found;
    bool any = glob(pattern, 0, NULL, &found) == 0;

    if (any) snprintf(path, size, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
    return any;
}

/* The folder of programs, of the newest version that Debian's packages have brought, or else that
 * script/servers has. */
static void find_programs(void) {
    const char *given = getenv("HF_PG_BIN");
    char pattern[600];
    char path[640];

    if (given != NULL) {
        snprintf(server.programs, sizeof server.programs, "%s", given);
        return;
    }
    snprintf(pattern, sizeof pattern, "%s/postgres-*/bin/initdb", find_built());
    if (!find_last("/usr/lib/postgresql/*/bin/initdb", path, sizeof path) &&
        !find_last(pattern, path, sizeof path))
        return;
    *strrchr(path, '/') = '\0';
    snprintf(server.programs, sizeof server.programs, "%s", path);
}

static const char *program(const char *name) {
    static char path[700];

    snprintf(path, sizeof path, "%s/%s", server.programs, name);
    return path;
}

static void find_user(void) {
    const struct passwd *user = getpwnam("postgres");

    if (user == NULL) user = getpwnam("nobody");
    if (user == NULL) return;
    server.uid = user->pw_uid;
    server.gid = user->pw_gid;
}

/* A page that the server shares with us. */
static void make_clock(void) {
    char path[128];
    int fd;
    void *page;

    snprintf(path, sizeof path, "%s/clock", server.folder);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || ftruncate(fd, sizeof *server.clock) != 0) give_up(path);
    page = mmap(NULL, sizeof *server.clock, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) give_up("mmap");
    server.clock = page;
    close(fd);
}

static void make_folder(void) {
    const char *base = getenv("TMPDIR");
    char data[96];

    snprintf(server.folder, sizeof server.folder, "%s/hf-postgres-XXXXXX",
             base != NULL && strlen(base) < 32 ? base : "/tmp");
    if (mkdtemp(server.folder) == NULL) give_up(server.folder);
    if (getuid() == 0 && chown(server.folder, server.uid, server.gid) != 0) give_up("chown");
    atexit(clean_up);
    make_clock();
    snprintf(data, sizeof data, "%s/data", server.folder);
    if (!RUN(program("initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"))
        give_up("initdb");
}

/* The library lies beside the program. */
static void load_clock(void) {
    char path[512];
    char clock[128];
    ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
    char *slash;

    if (len < 0) _exit(126);
    path[len] = '\0';
    slash = strrchr(path, '/');
    snprintf(slash, sizeof path - (size_t)(slash - path), "/preload-clock.so");
    setenv("LD_PRELOAD", path, 1);
    snprintf(clock, sizeof clock, "%s/clock", server.folder);
    setenv("HF_CLOCK_FILE", clock, 1);
    setenv("HF_CLOCK_INDEX", "0", 1);
}

static void become_server(void) {
    char data[96];
    char sockets[128];
    char port[8];
    char path[128];
    int log;

    snprintf(path, sizeof path, "%s/log", server.folder);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    (void)dup2(log, STDOUT_FILENO);
    (void)dup2(log, STDERR_FILENO);
    load_clock();
    become_user();
    /* After the change of user, which takes it away. */
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    snprintf(data, sizeof data, "%s/data", server.folder);
    snprintf(sockets, sizeof sockets, "unix_socket_directories=%s", server.folder);
    snprintf(port, sizeof port, "%d", server.port);
    /* By its path too, for it looks for its other files beside itself. */
    execl(program("postgres"), program("postgres"), "-D", data, "-p", port, "-c", sockets, "-c",
          "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=100",
          (char *)NULL);
    _exit(127);
}

static bool connect_to_server(void) {
    char words[160];

    snprintf(words, sizeof words,
             "host=127.0.0.1 port=%d user=postgres dbname=postgres connect_timeout=2", server.port);
    if (server.conn != NULL) PQfinish(server.conn);
    server.conn = PQconnectdb(words);
    return PQstatus(server.conn) == CONNECTION_OK;
}

/* False: it has ended again, since another has taken the port. */
static bool start(void) {
    const struct timespec pause = {0, 5000000};

    server.pid = fork();
    if (server.pid < 0) give_up("fork");
    if (server.pid == 0) become_server();
    for (int i = 0; i < PATIENCE_MS / 5; i++) {
        if (waitpid(server.pid, NULL, WNOHANG) == server.pid) {
            server.pid = 0;
            return false;
        }
        if (connect_to_server()) return true;
        nanosleep(&pause, NULL);
    }
    FAIL("the server does not answer");
    exit(1);
}

uint16_t postgres_port(void) {
    if (server.pid != 0) return server.port;
    if (server.programs[0] == '\0') find_programs();
    if (server.programs[0] == '\0') SKIP("there is no PostgreSQL server here");
    if (server.folder[0] == '\0') {
        find_user();
        make_folder();
    }
    for (int i = 0; i < STARTS_MAX; i++) {
        server.port = support_free_port();
        if (start()) return server.port;
    }
    FAIL("no server could be started: see %s/log", server.folder);
    exit(1);
}

/* On the same port: what is connected is to find it there again. */
static void start_again(void) {
    for (int i = 0; i < STARTS_MAX; i++) {
        if (start()) return;
    }
    FAIL("the server did not start again: see %s/log", server.folder);
    exit(1);
}

void postgres_restart(bool crash) {
    (void)postgres_port();
    stop(crash ? SIGQUIT : SIGINT);
    start_again();
}

/* ---------------------------------------------------------------- the pooler */

static void write_pooler(const char *path) {
    FILE *conf = fopen(path, "w");

    if (conf == NULL) give_up(path);
    fprintf(conf,
            "[databases]\n* = host=127.0.0.1 port=%d user=postgres\n"
            "[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\n"
            "auth_type = any\npool_mode = transaction\nmax_client_conn = 200\n"
            /* Not a quarter of a minute after a server that was not there. */
            "server_login_retry = 0.1\n",
            server.port, server.pooler_port);
    fclose(conf);
}

static void become_pooler(const char *conf) {
    char pattern[600];
    char path[640];
    const char *command = "pgbouncer";
    int null = open("/dev/null", O_WRONLY);

    (void)dup2(null, STDOUT_FILENO);
    (void)dup2(null, STDERR_FILENO);
    snprintf(pattern, sizeof pattern, "%s/root/usr/lib/*-linux-gnu", find_built());
    if (find_last(pattern, path, sizeof path)) setenv("LD_LIBRARY_PATH", path, 1);
    snprintf(pattern, sizeof pattern, "%s/root/usr/sbin/pgbouncer", find_built());
    if (find_last(pattern, path, sizeof path) ||
        find_last("/usr/sbin/pgbouncer", path, sizeof path))
        command = path;
    become_user();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp(command, "pgbouncer", conf, (char *)NULL);
    _exit(127);
}

/* False: it has ended, since another has taken the port, or there is no such program. */
static bool start_pooler(void) {
    const struct timespec pause = {0, 5000000};
    char words[160];
    char conf[96];
    int status;

    server.pooler_port = support_free_port();
    snprintf(conf, sizeof conf, "%s/pgbouncer.ini", server.folder);
    write_pooler(conf);
    server.pooler = fork();
    if (server.pooler < 0) give_up("fork");
    if (server.pooler == 0) become_pooler(conf);
    snprintf(words, sizeof words, "host=127.0.0.1 port=%d user=postgres dbname=postgres",
             server.pooler_port);
    for (int i = 0; i < PATIENCE_MS / 5; i++) {
        bool answers = PQping(words) == PQPING_OK;

        if (waitpid(server.pooler, &status, WNOHANG) == server.pooler) {
            server.pooler = 0;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 127) SKIP("there is no pgbouncer here");
            return false;
        }
        if (answers) return true;
        nanosleep(&pause, NULL);
    }
    FAIL("the pooler does not answer");
    exit(1);
}

void postgres_through_pooler(void) {
    (void)postgres_port();
    for (int i = 0; server.pooler == 0 && i < STARTS_MAX; i++) {
        if (start_pooler()) return;
    }
    if (server.pooler != 0) return;
    FAIL("no pooler could be started");
    exit(1);
}

/* ---------------------------------------------------------------- what it has */

void postgres_fresh(char *url, size_t size) {
    static int serial;

    (void)postgres_port();
    snprintf(url, size, "postgres://postgres@127.0.0.1:%d/postgres?schema=world_%d",
             server.pooler != 0 ? server.pooler_port : server.port, ++serial);
}

void postgres_set_clock(uint64_t real_us) {
    (void)postgres_port();
    atomic_store(server.clock, real_us);
}

static void copy_data(const char *from, const char *to) {
    char source[96];
    char target[96];

    snprintf(source, sizeof source, "%s/%s", server.folder, from);
    snprintf(target, sizeof target, "%s/%s", server.folder, to);
    stop(SIGINT);
    if (!RUN("rm", "-rf", target) || !RUN("cp", "-a", source, target)) give_up("cp");
    start_again();
}

void postgres_save(const char *url) {
    (void)url;
    copy_data("data", "copy");
}

void postgres_restore(const char *url) {
    (void)url;
    copy_data("copy", "data");
}

const char *postgres_do(const char *sql) {
    PGresult *result;

    (void)postgres_port();
    result = PQexec(server.conn, sql);
    server.answer[0] = '\0';
    if (PQresultStatus(result) != PGRES_TUPLES_OK && PQresultStatus(result) != PGRES_COMMAND_OK)
        FAIL("%s: %s", sql, PQerrorMessage(server.conn));
    else if (PQntuples(result) > 0)
        snprintf(server.answer, sizeof server.answer, "%s", PQgetvalue(result, 0, 0));
    PQclear(result);
    return server.answer;
}
