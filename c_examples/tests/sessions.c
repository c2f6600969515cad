/*
 * sessions.c - ends the connections of resp or mqtt many times, and checks each new session
 *
 *     sessions redis|mosquitto SERVER FOLDER SESSIONS PERIOD CLIENT...
 *
 * Starts the server SERVER and the client on an address of loopback. In each
 * session it waits for the subscription, publishes a number, and waits until the
 * client prints the number. Then the connection ends in one of three ways:
 *   - The server ends it: CLIENT KILL in redis, a second client of that name in MQTT.
 *   - The server is killed and started again, once in PERIOD sessions.
 *   - The server is stopped until the client ends the connection, once in PERIOD sessions.
 * Sessions that end before the number arrives are counted: a client may reach a
 * server that is being killed. A session that has a subscription and does not
 * receive the number is a failure. The client must not keep descriptors.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LIMIT_MS = 60000 }; /* only a hang takes that long */

static pid_t server, client;
static struct sockaddr_in where = {.sin_family = AF_INET};
static char address[32], port[8];

static void end_processes(void)
{
    if (client > 0)
        kill(client, SIGKILL);
    if (server > 0)
        kill(server, SIGKILL);
}

static void must(int true_, const char *what)
{
    if (!true_) {
        fprintf(stderr, "sessions: %s (errno %d)\n", what, errno);
        exit(1);
    }
}

static int64_t now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Starts a program that ends with this one. */
static pid_t start(char *const words[], int out, int err)
{
    pid_t pid = fork();

    must(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out, 1);
        dup2(err, 2);
        execvp(words[0], words);
        _exit(127);
    }
    return pid;
}

/* --- The server --------------------------------------------------------------- */

static int try_connect(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval limit = {LIMIT_MS / 1000, 0};

    must(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&where, sizeof where) == 0)
        return fd;
    close(fd);
    return -1;
}

static void start_server(int redis, char *program, char *folder)
{
    char file[300];
    char *redis_words[] = {program, "--port", port, "--bind", address, "--save", "", "--appendonly", "no", "--dir", folder, NULL};
    char *mosquitto_words[] = {program, "-c", file, NULL};
    int64_t from = now_ms();
    int log, fd;

    snprintf(file, sizeof file, "%s/server.log", folder);
    log = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    must(log >= 0, file);
    if (!redis) {
        FILE *conf;

        snprintf(file, sizeof file, "%s/mosquitto.conf", folder);
        must((conf = fopen(file, "w")) != NULL, file);
        fprintf(conf, "listener %s %s\nallow_anonymous true\nuser root\nlog_dest stdout\nset_tcp_nodelay true\n", port, address);
        fclose(conf);
    }
    server = start(redis ? redis_words : mosquitto_words, log, log);
    close(log);
    while ((fd = try_connect()) < 0) {
        must(waitpid(server, NULL, WNOHANG) == 0, "the server has ended");
        must(now_ms() - from < LIMIT_MS, "the server does not listen");
        poll(NULL, 0, 5);
    }
    close(fd);
}

/* Sends a request on a connection, and reads the reply of that length. */
static void ask(int fd, const void *request, size_t len, unsigned char *reply, size_t reply_len)
{
    must(send(fd, request, len, MSG_NOSIGNAL) == (ssize_t)len, "send to the server");
    must(recv(fd, reply, reply_len, MSG_WAITALL) == (ssize_t)reply_len, "the server does not reply");
}

/* Logs in to the broker under a name of 16 bytes. */
static int mqtt_connect(const char *name)
{
    unsigned char packet[] = "\x10\x1c\0\4MQTT\4\2\0\0\0\x10................", reply[4];
    int fd = try_connect();

    must(fd >= 0, "connect to the broker");
    memcpy(packet + 14, name, 16);
    ask(fd, packet, 30, reply, 4);
    must(reply[0] == 0x20 && reply[3] == 0, "CONNACK");
    return fd;
}

static void publish(int redis, int number)
{
    char text[64];
    unsigned char reply[4];
    int fd;

    if (redis) {
        must((fd = try_connect()) >= 0, "connect to redis");
        ask(fd, text, (size_t)sprintf(text, "PUBLISH news %08d\r\n", number), reply, 4);
        must(reply[0] == ':', "PUBLISH");
    } else { /* QoS 1, with the packet number 1 */
        fd = mqtt_connect("sessions-publish");
        ask(fd, text, (size_t)sprintf(text, "%c%c%c%cnews%c%c%08d", 0x32, 16, 0, 4, 0, 1, number), reply, 4);
        must(reply[0] == 0x40, "PUBACK");
    }
    close(fd);
}

/* Lets the server end the connection of the client. */
static void end_connection(int redis)
{
    unsigned char reply[4];
    int fd;

    if (redis) {
        must((fd = try_connect()) >= 0, "connect to redis");
        ask(fd, "CLIENT KILL TYPE pubsub\r\n", 25, reply, 4);
        must(reply[0] == ':', "CLIENT KILL");
    } else {
        fd = mqtt_connect("keepsock-example");
    }
    close(fd);
}

/* --- The client --------------------------------------------------------------- */

static int lines; /* the client's standard output */

/* The next line of the client; NULL at its end. */
static const char *next_line(void)
{
    static char buf[4096], line[4096];
    static size_t len;
    int64_t from = now_ms();
    char *end;

    while ((end = memchr(buf, '\n', len)) == NULL) {
        struct pollfd fd = {lines, POLLIN, 0};
        ssize_t got;

        must(now_ms() - from < LIMIT_MS && len < sizeof buf, "the client prints no line");
        if (poll(&fd, 1, 1000) == 0)
            continue;
        got = read(lines, buf + len, sizeof buf - len);
        must(got >= 0, "read");
        if (got == 0)
            return NULL;
        len += (size_t)got;
    }
    *end++ = '\0';
    strcpy(line, buf);
    len -= (size_t)(end - buf);
    memmove(buf, end, len);
    return line;
}

static int starts_with(const char *line, const char *text)
{
    return strncmp(line, text, strlen(text)) == 0;
}

static int descriptors(void)
{
    char path[64];
    int count = 0;
    DIR *folder;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)client);
    must((folder = opendir(path)) != NULL, path);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

int main(int argc, char **argv)
{
    int redis, sessions, period, ended = 0, early = 0, killed = 0, stopped = 0, delivered = 0, first = 0, status = 0;
    int pipes[2], probe;
    char endpoint[48];
    char *words[24] = {0};
    socklen_t len = sizeof where;
    int count = 0;

    must(argc > 6 && argc < 20, "usage: sessions redis|mosquitto SERVER FOLDER SESSIONS PERIOD CLIENT...");
    redis = strcmp(argv[1], "redis") == 0;
    sessions = atoi(argv[4]);
    period = atoi(argv[5]);
    atexit(end_processes);

    /* An address of this process, so that no other program takes the port while the server restarts. */
    snprintf(address, sizeof address, "127.77.%d.%d", getpid() / 250 % 250 + 1, getpid() % 250 + 1);
    must(inet_pton(AF_INET, address, &where.sin_addr) == 1, "inet_pton");
    probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    must(bind(probe, (struct sockaddr *)&where, sizeof where) == 0
            && getsockname(probe, (struct sockaddr *)&where, &len) == 0, "bind");
    close(probe);
    snprintf(port, sizeof port, "%d", ntohs(where.sin_port));
    snprintf(endpoint, sizeof endpoint, "%s:%s", address, port);
    start_server(redis, argv[2], argv[3]);

    for (int i = 6; i < argc; i++)
        words[count++] = argv[i];
    words[count++] = endpoint;
    words[count++] = "news";
    words[count++] = argv[4];
    words[count++] = "500"; /* the heartbeat */
    must(pipe2(pipes, O_CLOEXEC) == 0, "pipe2");
    client = start(words, pipes[1], 2);
    close(pipes[1]);
    lines = pipes[0];

    for (;;) {
        const char *line = next_line();
        char expected[64];
        int way = ended % period;

        while (line != NULL && !starts_with(line, "subscribed")) {
            if (starts_with(line, "lost: ")) {
                printf("ended early, %s\n", line);
                ended++;
                early++;
            } else {
                must(!redis || strcmp(line, "stored: hello") == 0, line);
            }
            line = next_line();
        }
        if (line == NULL)
            break;
        publish(redis, ended);
        sprintf(expected, "message news %08d", ended);
        do {
            must((line = next_line()) != NULL, "the client ended in a session");
        } while (starts_with(line, "message ") && strcmp(line, expected) != 0);
        if (starts_with(line, "lost: ")) {
            ended++;
            early++;
            continue;
        }
        must(strcmp(line, expected) == 0, line);
        delivered++;

        if (delivered == 3) {
            first = descriptors();
        } else if (delivered > 3 && (delivered % 100 == 0 || ended > sessions - 4)) {
            int64_t from = now_ms();

            while (descriptors() > first) { /* a close continues for up to 2 s */
                must(now_ms() - from < LIMIT_MS, "the client keeps descriptors");
                poll(NULL, 0, 10);
            }
        }

        if (way == period / 3) {
            kill(server, SIGKILL);
            must(waitpid(server, NULL, 0) == server, "waitpid");
            server = 0;
            start_server(redis, argv[2], argv[3]);
            killed++;
        } else if (way == period * 2 / 3) {
            kill(server, SIGSTOP);
            stopped++;
        } else {
            end_connection(redis);
        }
        do {
            must((line = next_line()) != NULL, "the client ended in a session");
        } while (!starts_with(line, "lost: "));
        ended++;
        if (way == period * 2 / 3) {
            printf("server stopped, %s\n", line);
            must(strstr(line, "heartbeat") != NULL, "another reason");
            kill(server, SIGCONT);
        }
    }
    must(waitpid(client, &status, 0) == client && status == 0, "the client failed");
    client = 0;
    must(ended == sessions, "another number of sessions");
    must(early * 10 <= sessions + 100, "too many sessions ended early");
    printf("%s: %d sessions, %d with a subscription and its message, %d ended before it; the server was killed %d times "
           "and stopped %d times; the client has %d descriptors\n", argv[1], ended, delivered, early, killed, stopped, first - 2);
    return 0;
}
