# Waits in a template, and is the first to act in every machine that is restored from it. Perl, because it is in
# every Debian system, and does all of this by itself: under emulation each program that starts takes tenths of a
# second.
#   perl -e THIS PORT SCRIPT CLOCK_SETTIME
# At the line `rest` it runs the shell script. Then come lines with what a restored machine is to be, the clock
# first; the last is `end`. Contents are in hexadecimal. CLOCK_SETTIME is the number of that system call.
use strict;
use Fcntl;
use POSIX ();
use Socket;

my ($place, $script, $clock_settime) = @ARGV;
my $host_key = "/etc/ssh/ssh_host_ed25519_key";
open my $port, "+<", $place or die;
my $heard = "";

sub hear {
  my ($last) = @_;
  while (1) {
    return split /\n/, $1 if $heard =~ s/\A(.*?)^\Q$last\E\n//ms;
    sysread $port, $heard, 65536, length $heard or POSIX::_exit(1);
  }
}

sub put {
  my ($mode, $path, $content) = @_;
  unlink "$path.new";
  sysopen my $file, "$path.new", O_WRONLY | O_CREAT | O_EXCL, oct $mode or die "$path: $!\n";
  chmod oct $mode, $file;
  print $file $content;
  close $file and rename "$path.new", $path or die "$path: $!\n";
}

# Source: clock_settime(2); clock 0 is that of the time of day.
sub clock {
  my ($seconds, $nanoseconds) = @_;
  syscall($clock_settime + 0, 0, pack "l! l!", $seconds, $nanoseconds) == 0 or die "clock: $!\n";
}

# Source: random(4): what is written is mixed in; RNDRESEEDCRNG makes the kernel's generator anew from it.
sub random {
  open my $pool, ">", "/dev/random" or die;
  syswrite $pool, pack "H*", $_[0];
  ioctl $pool, 0x5207, 0 or die "random: $!\n";
}

# Source: netdevice(7), and struct rtentry in the kernel's linux/route.h.
sub network {
  my ($mac, $address, $netmask, $broadcast, $gateway) = @_;
  socket my $socket, AF_INET, SOCK_DGRAM, 0 or die;
  my $set = sub { ioctl $socket, $_[0], pack "a16 a24", "eth0", $_[1] or die sprintf "%x: %s\n", $_[0], $! };
  my $inet = sub { pack "S n a4 x8", AF_INET, 0, inet_aton($_[0]) };
  $set->(0x8924, pack "S H12", 1, $mac);  # SIOCSIFHWADDR
  $set->(0x8916, $inet->($address));      # SIOCSIFADDR
  $set->(0x891c, $inet->($netmask));      # SIOCSIFNETMASK
  $set->(0x891a, $inet->($broadcast));    # SIOCSIFBRDADDR
  $set->(0x8914, pack "S", 0x1043);       # SIOCSIFFLAGS: up, running, broadcast, multicast
  my $anywhere = $inet->("0.0.0.0");
  my $route = pack "x![L!] L! a16 a16 a16 S x64", 0, $anywhere, $inet->($gateway), $anywhere, 3;
  ioctl $socket, 0x890b, $route or die "route: $!\n";  # SIOCADDRT: up, by a gateway
}

hear("rest");
system "sh", "-c", $script;
syswrite $port, $? == 0 ? "resting\n" : "failed: it did not come to rest\n";
my @lines = hear("end");
eval {
  @lines or die "nothing was said\n";
  # The SSH server waits for its key here. It opens the path more than once: the file comes first.
  sysopen my $waiting, $host_key, O_RDWR or die "$host_key: $!\n";
  my $key;
  for (@lines) {
    my ($what, @values) = split / /;
    if ($what eq "clock") { clock(@values) }
    elsif ($what eq "random") { random(@values) }
    elsif ($what eq "network") { network(@values) }
    elsif ($what eq "name") { open my $file, ">", "/proc/sys/kernel/hostname" or die; print $file @values }
    elsif ($what eq "file") {
      my ($mode, $path, $content) = @values;
      $content = pack "H*", $content;
      put($mode, $path, $content);
      syswrite $waiting, $content if $path eq $host_key;
    }
    else { die "$what: not known\n" }
  }
};
syswrite $port, $@ ? "failed: $@" : "renewed\n";
# At once, without taking anything apart.
POSIX::_exit(0);
