<?php
// An application of the chaos run: see chaos/src/block.rs for what it answers. Its name is CHAOS_APP of its pool.
$name = getenv('CHAOS_APP');
$token = $_GET['t'] ?? '';
$blocks = (int) ($_GET['n'] ?? 1);
$hash = hash_init('fnv1a64');
$length = 0;
$in = fopen('php://input', 'rb');
while (!feof($in)) {
    $piece = fread($in, 65536);
    $length += strlen($piece);
    hash_update($hash, $piece);
}
$received = $length . ' ' . hash_final($hash);
if (!empty($_GET['ms'])) {
    usleep(1000 * (int) $_GET['ms']);
}
header('Content-Type: text/plain');
header("X-App: $name");
header("X-Token: $token");
header("X-Received: $received");
if (!empty($_GET['l'])) {
    header('Content-Length: ' . 64 * $blocks);
}
$pause = (int) ($_GET['p'] ?? 0);
$text = '';
for ($i = 0; $i < $blocks; $i++) {
    $text .= str_pad("$name $token $i" . ($i ? '' : " $received"), 63) . "\n";
    if (strlen($text) >= 65536) {
        echo $text;
        $text = '';
    }
    if ($pause && $i == intdiv($blocks, 2)) {
        echo $text;
        $text = '';
        flush();
        usleep(1000 * $pause);
    }
}
echo $text;
