/* raw_accept CONNECTIONS READ_TIMEOUT_MS - plain C: echoes to one connection after another */
#define _GNU_SOURCE
#include "raw.h"

int main(int argc, char **argv)
{
    must(argc == 3, "usage: raw_accept CONNECTIONS READ_TIMEOUT_MS");
    long connections = strtol(argv[1], NULL, 10), timeout = strtol(argv[2], NULL, 10);

    alarm(GIVE_UP_AFTER_S);
    int listener = listen_loopback();
    while (connections-- > 0) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

        must(fd >= 0, "accept4");
        if (timeout > 0)
            set_timeout(fd, SO_RCVTIMEO, timeout);
        echo_until_end(fd);
        close(fd);
    }
    return 0;
}
